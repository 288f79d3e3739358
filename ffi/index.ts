/** Native calls, typed and checked. Nothing outside this folder imports bun:ffi. */
export * from "./attributes.ts";
export * from "./calls.ts";
export * from "./check.ts";
export * from "./codecs.ts";
export * from "./directory.ts";
export * from "./errors.ts";
export * from "./file.ts";
export * from "./kernel-file.ts";
export { isUsable, SYSTEM_PAGE_SIZE } from "./libc.ts";
export * from "./memory.ts";
export * from "./options.ts";
export * from "./pagemap.ts";
export * from "./poll.ts";
export * from "./schedule.ts";
export * from "./transfer.ts";
export * from "./uring.ts";
export * from "./userfaultfd.ts";
