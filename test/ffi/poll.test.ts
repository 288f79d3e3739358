/** poll(2) and eventfd(2) through the wrappers. */
import { afterEach, expect, test } from "bun:test";
import {
  closeFile,
  createEventFd,
  POLLIN,
  POLLNVAL,
  SyscallError,
  setFaultHook,
  signalEventFd,
  waitForEvents,
} from "../../ffi/index.ts";

afterEach(() => setFaultHook(undefined));

test("waitForEvents reports the eventfd that was signalled, and no other", () => {
  const [a, b] = [createEventFd(), createEventFd()];
  const entries = [
    { fd: a, events: POLLIN },
    { fd: b, events: POLLIN },
  ];
  expect(waitForEvents(entries, 0)).toEqual([0, 0]);
  signalEventFd(b);
  expect(waitForEvents(entries, 10_000)).toEqual([0, POLLIN]);
  signalEventFd(a);
  expect(waitForEvents(entries, 10_000)).toEqual([POLLIN, POLLIN]);
  closeFile(a);
  closeFile(b);
});

test("waitForEvents reports POLLNVAL for a descriptor that is not open", () => {
  const fd = createEventFd();
  closeFile(fd);
  expect(waitForEvents([{ fd, events: POLLIN }], 0)).toEqual([POLLNVAL]);
});

test("waitForEvents throws SyscallErrors for failures, RangeErrors for bad arguments", () => {
  setFaultHook((syscall) =>
    syscall === "poll" || syscall === "write" ? { errno: 12 } : undefined,
  );
  expect(() => waitForEvents([], 0)).toThrow(SyscallError);
  expect(() => signalEventFd(0)).toThrow("ENOMEM: write failed");
  setFaultHook(undefined);
  expect(() => waitForEvents([{ fd: -1, events: POLLIN }], 0)).toThrow(RangeError);
  expect(() => waitForEvents([{ fd: 0, events: 2 ** 16 }], 0)).toThrow(RangeError);
  expect(() => waitForEvents([], 1.5)).toThrow(RangeError);
});
