/**
 * Does one operation with ordinary system calls in the calling thread, for InlineQueue and the
 * Workers of WorkerQueue. It finishes short transfers, so all queues follow one rule (queue.ts).
 */
import { readAt, readVectorAt, writeAt, writeVectorAt } from "../../ffi/index.ts";
import { Kind, type OperationTable } from "./operations.ts";

/** Returns the operation's result. Precondition: the slot is running, and this thread runs it. */
export function perform(operations: OperationTable, slot: number): number {
  const kind = operations.kind[slot]!;
  return kind === Kind.Read || kind === Kind.Write
    ? transfer(operations, slot, kind)
    : transferVector(operations, slot, kind);
}

function transfer(operations: OperationTable, slot: number, kind: number): number {
  const fd = operations.fd[slot]!;
  const address = operations.address[slot]!;
  const lengthBytes = operations.remaining[slot]!;
  const positioned = kind === Kind.Read ? readAt : writeAt;
  return positioned(fd, address, lengthBytes, operations.offset[slot]!);
}

function transferVector(operations: OperationTable, slot: number, kind: number): number {
  const fd = operations.fd[slot]!;
  const positioned = kind === Kind.Readv ? readVectorAt : writeVectorAt;
  while (operations.remaining[slot]! > 0) {
    const count = operations.iovecCount[slot]!;
    const iovecs = operations.iovecAddress(slot);
    const result = positioned(
      fd,
      iovecs,
      count,
      operations.remaining[slot]!,
      operations.offset[slot]!,
    );
    if (result < 0) return result;
    if (result === 0) break;
    operations.advance(slot, result);
  }
  return operations.moved[slot]!;
}
