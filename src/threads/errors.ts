/**
 * Errors on their way between threads. postMessage keeps a built-in error's class, name, message and stack, but neither
 * the class nor the fields of ours (`code`, `errno`, `path`); so a thrown value is taken apart here into plain data and
 * rebuilt on the other side.
 */
import { errnoNumber, SyscallError } from "../../ffi/index.ts";

/** The Worker that ran a task is gone: terminated, exited, or ended by an error that nobody caught. */
export class ThreadDiedError extends Error {
  override readonly name = "ThreadDiedError";
  readonly code = "ERR_THREAD_DIED";
  /** What the Worker exited with. */
  readonly exitCode: number;

  constructor(task: string, exitCode: number, cause?: unknown) {
    super(
      `The thread that ran task "${task}" died with exit code ${exitCode}`,
      cause === undefined ? undefined : { cause },
    );
    this.exitCode = exitCode;
  }
}

/** A Worker could not begin: its entry file is missing, as in a program that was bundled without it. */
export class WorkerNotFoundError extends Error {
  override readonly name = "WorkerNotFoundError";
  readonly code = "ERR_WORKER_NOT_FOUND";
  readonly url: string;

  constructor(url: string, cause: unknown) {
    super(
      `There is no Worker at ${url}: a program is bundled with the entry point pgalloc/worker beside its own, ` +
        "and --entry-naming '[name].[ext]'",
      { cause },
    );
    this.url = url;
  }
}

/** A thrown value as plain data that postMessage copies faithfully. */
export type ToldError =
  | { readonly kind: "value"; readonly value: unknown }
  | {
      readonly kind: "error";
      readonly name: string;
      readonly message: string;
      readonly stack: string | undefined;
      /** Own properties, `cause` and `errors` among them; told errors inside are marked with `TOLD`. */
      readonly fields: Readonly<Record<string, unknown>>;
    };

export type RebuildError = (told: ToldError & { kind: "error" }) => Error;

/** Marks a told error inside `fields`; no field of an error that we know is called this. */
const TOLD = "pgalloc.told";
/** A chain of causes deeper than this is cut: it is a cycle, or nobody reads it. */
const MAX_DEPTH = 8;
/** Own properties of errors that are not enumerable and must travel. */
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

/** SyscallError wants the positive number; the code is there only to name an unusable one. */
function errnoFromCode(code: string, errno: unknown): number {
  return typeof errno === "number" ? -errno : errnoNumber(code);
}

/**
 * Says how errors named `name` are rebuilt from what another thread told. Without this, an error of a class that is
 * neither built in nor `SyscallError` arrives as an `Error` with the same name, message, stack and fields.
 */
export function registerErrorClass(name: string, rebuild: RebuildError): void {
  rebuilders.set(name, rebuild);
}

/** Takes a thrown value apart. Fields that cannot be copied (functions, symbols, class instances) become strings. */
export function tellError(thrown: unknown): ToldError {
  return tell(thrown, 0);
}

function tell(thrown: unknown, depth: number): ToldError {
  if (!(thrown instanceof Error)) return { kind: "value", value: portable(thrown, depth) };
  const fields: Record<string, unknown> = {};
  // `cause` and AggregateError's `errors` are not enumerable; neither are the engine's `line` and `column`, which stay here.
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
  if (depth > MAX_DEPTH) return "[deeper than what is told between threads]";
  if (value instanceof Error) return { [TOLD]: tell(value, depth) };
  if (Array.isArray(value)) return value.map((item) => portable(item, depth + 1));
  // A view would drag its whole backing buffer through postMessage: copy just its bytes.
  if (ArrayBuffer.isView(value))
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength).slice();
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return String(value);
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, portable(item, depth + 1)]),
  );
}

/** Rebuilds what `tellError` took apart. */
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

/** Intrinsic properties stay out of sight of `Object.keys`, as on an error that never travelled. */
function define(error: Error, key: string, value: unknown): void {
  const hidden = key === "stack" || HIDDEN_FIELDS.includes(key);
  Object.defineProperty(error, key, {
    value,
    writable: true,
    configurable: true,
    enumerable: !hidden,
  });
}
