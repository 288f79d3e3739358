// Written by scripts/stubs.ts.
import { errorClass, needsBun } from "./needs-bun.js";

export const MAX_TRANSFER_BYTES = 2147479552;
export const QueueBusyError = errorClass("QueueBusyError");
export const UringUnavailableError = errorClass("UringUnavailableError");
export const coalesce = needsBun("coalesce");
export const createQueue = needsBun("createQueue");
export const uringUnavailableReason = needsBun("uringUnavailableReason");
