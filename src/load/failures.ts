/** The reason why a page failed, as an error that names the place. */
import { SyscallError } from "../../ffi/index.ts";
import { CorruptCheckpointError, PageReadError } from "../errors/errors.ts";
import { PAGE_SIZE } from "../pages/units.ts";
import { contentName, crossesNetwork } from "../source/describe.ts";
import { ERROR_CHECKSUM, ERROR_FRAME, ERROR_SHORT, type LoadState } from "./load-state.ts";
import { FETCHES_MAX } from "./unit-job.ts";

/** The error of the first failed page in [start, end), or undefined. */
export function failureOf(state: LoadState, start?: number, end?: number): Error | undefined {
  const page = state.failedPage(start, end);
  return page < 0 ? undefined : errorOf(state, page);
}

function errorOf(state: LoadState, page: number): Error {
  const number = state.errorOf(page);
  const { extent, content, offset } = state.places.placeOf(page);
  const path = contentName(state.handle.source, content);
  const where = { path, section: "pages", offset };
  const what = `contents of extent ${extent}, memory offset ${page * PAGE_SIZE}`;
  const { source } = state.handle;
  // Damage by a network would differ each time.
  const times = crossesNetwork(source) ? `, which was fetched ${FETCHES_MAX} times` : "";
  switch (number) {
    case ERROR_CHECKSUM:
      return new CorruptCheckpointError(`Checksum does not match the ${what}${times}`, where);
    case ERROR_SHORT:
      return new CorruptCheckpointError(`Page file ends before the ${what}`, where);
    case ERROR_FRAME:
      return new CorruptCheckpointError(`Cannot decode the frame with the ${what}${times}`, where);
  }
  const stored = state.errors.get(number);
  if (stored.kind === "syscall")
    return new SyscallError(stored.syscall, stored.errno, path, `offset ${offset}`);
  return new PageReadError(stored.error, where);
}
