/** Extended attributes of open files: they mark a file with the program that made it. */
import { enter } from "./calls.ts";
import { checkInteger } from "./check.ts";
import { cString } from "./file.ts";
import { libc } from "./libc.ts";

/** fsetxattr(2) with an empty value. Returns false if the file system or the kernel refuses it. */
export function markFile(fd: number, name: string): boolean {
  return call("fsetxattr", fd, name, (bytes) => libc.fsetxattr(fd, bytes as never, 0, 0, 0)) === 0;
}

/** fgetxattr(2). True if the file has the attribute, with any value. */
export function isMarked(fd: number, name: string): boolean {
  return (
    call("fgetxattr", fd, name, (bytes) => Number(libc.fgetxattr(fd, bytes as never, 0, 0))) >= 0
  );
}

function call(syscall: string, fd: number, name: string, make: (name: Buffer) => number): number {
  checkInteger("fd", fd, 0, 2 ** 31 - 1);
  const fault = enter(syscall, fd, 0, 0);
  return fault !== undefined && "errno" in fault ? -1 : make(cString(name));
}
