/**
 * Errors that cross threads. postMessage keeps the class, name, message and stack of a built-in
 * error, but neither the class nor the fields of our errors (`code`, `errno`, `path`). So
 * `tellError` turns a thrown value into plain data here, and `rebuildError` makes the error again
 * in the other thread.
 */
import { errnoNumber, SyscallError } from "../../ffi/index.ts";

/** The Worker of a task is gone: terminated, exited, or ended by an uncaught error. */
export class ThreadDiedError extends Error {
  override readonly name = "ThreadDiedError";
  readonly code = "ERR_THREAD_DIED";
  /** The Worker's exit code. */
  readonly exitCode: number;

  constructor(task: string, exitCode: number, cause?: unknown) {
    super(
      `The thread that ran task "${task}" died with exit code ${exitCode}`,
      cause === undefined ? undefined : { cause },
    );
    this.exitCode = exitCode;
  }
}

/**
 * A Worker could not start: its entry file is missing, as in a program that was bundled without it.
 */
export class WorkerNotFoundError extends Error {
  override readonly name = "WorkerNotFoundError";
  readonly code = "ERR_WORKER_NOT_FOUND";
  readonly url: string;

  constructor(url: string, cause: unknown) {
    super(
      `There is no Worker at ${url}: bundle the program with pgalloc/worker as a second entry ` +
        "point " +
        "and --entry-naming '[name].[ext]'",
      { cause },
    );
    this.url = url;
  }
}

/**
 * The system gives this process no more threads (RLIMIT_NPROC, a pids cgroup, or no memory), or too
 * few descriptors for one (RLIMIT_NOFILE).
 */
export class ThreadLimitError extends Error {
  override readonly name = "ThreadLimitError";
  readonly code = "ERR_THREAD_LIMIT";

  constructor(cause: unknown) {
    const remedy =
      cause instanceof SyscallError
        ? "too few descriptors are left; raise the limit of open files (ulimit -n)"
        : "the system refuses another one; raise the limit of processes (ulimit -u, or pids.max " +
          "of the cgroup)";
    super(`Cannot start a thread: ${remedy}`, { cause });
  }
}

/** A thrown value as plain data that postMessage copies without loss. */
export type ToldError =
  | { readonly kind: "value"; readonly value: unknown }
  | {
      readonly kind: "error";
      readonly name: string;
      readonly message: string;
      readonly stack: string | undefined;
      /**
       * Own properties, including `cause` and `errors`. Told errors inside are marked with `TOLD`.
       */
      readonly fields: Readonly<Record<string, unknown>>;
    };

export type RebuildError = (told: ToldError & { kind: "error" }) => Error;

/** Marks a told error inside `fields`. No error class has a field of this name. */
const TOLD = "pgalloc.told";
/** A deeper chain of causes is cut, because it is probably a cycle. */
const MAX_DEPTH = 8;
/** Own properties of errors that are copied although they are not enumerable. */
const HIDDEN_FIELDS = ["cause", "errors"];

const builtIns: Record<string, new (message: string) => Error> = {
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
};

const rebuilders = new Map<string, RebuildError>([
  [
    "SyscallError",
    ({ message, fields }) => {
      const { code, syscall, path } = fields as { code: string; syscall: string; path?: string };
      const error = new SyscallError(syscall, errnoFromCode(code, fields.errno), path);
      error.message = message;
      return error;
    },
  ],
]);

/** SyscallError takes the positive number. Without a number, the code decides. */
function errnoFromCode(code: string, errno: unknown): number {
  return typeof errno === "number" ? -errno : errnoNumber(code);
}

/**
 * Registers the function that rebuilds another thread's errors named `name`. An error of a class
 * that is neither registered, built in nor `SyscallError` arrives as an `Error` with the same name,
 * message, stack and fields.
 */
export function registerErrorClass(name: string, rebuild: RebuildError): void {
  rebuilders.set(name, rebuild);
}

/**
 * Turns a thrown value into plain data. Fields that cannot be copied (functions, symbols, instances
 * of classes) become strings.
 */
export function tellError(thrown: unknown): ToldError {
  return tell(thrown, 0);
}

function tell(thrown: unknown, depth: number): ToldError {
  if (!(thrown instanceof Error)) return { kind: "value", value: portable(thrown, depth) };
  const fields: Record<string, unknown> = {};
  // `cause` and `errors` are not enumerable. The engine's `line` and `column` are not either; they
  // are not copied.
  for (const key of [
    ...Object.keys(thrown),
    ...HIDDEN_FIELDS.filter((hidden) => Object.hasOwn(thrown, hidden)),
  ]) {
    fields[key] = portable((thrown as unknown as Record<string, unknown>)[key], depth + 1);
  }
  return { kind: "error", name: thrown.name, message: thrown.message, stack: thrown.stack, fields };
}

function portable(value: unknown, depth: number): unknown {
  if (typeof value === "function" || typeof value === "symbol") return String(value);
  if (typeof value !== "object" || value === null) return value;
  if (depth > MAX_DEPTH) return "[too deep to tell another thread]";
  if (value instanceof Error) return { [TOLD]: tell(value, depth) };
  if (Array.isArray(value)) return value.map((item) => portable(item, depth + 1));
  // postMessage would copy the view's whole buffer.
  if (ArrayBuffer.isView(value))
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength).slice();
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return String(value);
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, portable(item, depth + 1)]),
  );
}

/** Makes the error again from the data of `tellError`. */
export function rebuildError(told: ToldError): unknown {
  if (told.kind === "value") return rebuildField(told.value);
  const fields = Object.fromEntries(
    Object.entries(told.fields).map(([key, value]) => [key, rebuildField(value)]),
  );
  const error = construct({ ...told, fields });
  for (const [key, value] of Object.entries(fields)) define(error, key, value);
  if (error.name !== told.name) define(error, "name", told.name);
  if (told.stack !== undefined) define(error, "stack", told.stack);
  return error;
}

function rebuildField(value: unknown): unknown {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
  if (Array.isArray(value)) return value.map(rebuildField);
  const told = (value as Record<string, unknown>)[TOLD];
  if (told !== undefined) return rebuildError(told as ToldError);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, rebuildField(item)]));
}

function construct(told: ToldError & { kind: "error" }): Error {
  const rebuild = rebuilders.get(told.name);
  if (rebuild !== undefined) return rebuild(told);
  if (Array.isArray(told.fields.errors))
    return new AggregateError(told.fields.errors, told.message);
  return new (builtIns[told.name] ?? Error)(told.message);
}

/** Makes the property not enumerable, as on an error that never crossed threads. */
function define(error: Error, key: string, value: unknown): void {
  const hidden = key === "stack" || HIDDEN_FIELDS.includes(key);
  Object.defineProperty(error, key, {
    value,
    writable: true,
    configurable: true,
    enumerable: !hidden,
  });
}
