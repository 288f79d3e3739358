// Written by scripts/stubs.ts.
import { errorClass, needsBun } from "./needs-bun.js";

export const CorruptStoreError = errorClass("CorruptStoreError");
export const DroppedError = errorClass("DroppedError");
export const ReadOnlyStoreError = errorClass("ReadOnlyStoreError");
export const StaleHandleError = errorClass("StaleHandleError");
export const Store = needsBun("Store");
export const StoreBusyError = errorClass("StoreBusyError");
export const WrongTypeError = errorClass("WrongTypeError");
