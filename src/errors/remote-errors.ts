/** Errors of places in a network. Messages never contain queries or credentials. */

/** Why a request failed. */
export type RemoteFailure =
  /** No connection, or no answer. */
  | "unreachable"
  /** The server is overloaded, or has an error of its own. */
  | "busy"
  /** The server refuses the request: it gives no permission, or does not support the request. */
  | "refused"
  /** There is no such object. */
  | "missing"
  /** A condition of the request does not hold, or the object was replaced. */
  | "changed"
  /** The answer has other bytes than the request asked for. */
  | "wrong range"
  /** The answer announces fewer bytes than the request asked for. */
  | "short"
  /** The answer has more bytes than the request asked for. */
  | "long"
  /** The connection ended before the answer did. */
  | "truncated"
  /** The answer came too slowly. */
  | "stalled"
  /** The answer cannot be understood. */
  | "malformed";

export interface RemoteErrorDetails {
  readonly failure: RemoteFailure;
  /** The address without its query. */
  readonly url: string;
  readonly status?: number;
  /** The error code of an S3 answer: "SlowDown". */
  readonly s3Code?: string;
  readonly cause?: unknown;
}

/** A server could not be reached, or its answer was not usable. `failure` says why. */
export class RemoteError extends Error {
  override readonly name = "RemoteError";
  readonly code = "ERR_REMOTE";
  readonly failure: RemoteFailure;
  readonly url: string;
  readonly status?: number;
  readonly s3Code?: string;

  constructor(message: string, details: RemoteErrorDetails) {
    super(`${message} (${details.url})`, { cause: details.cause });
    this.failure = details.failure;
    this.url = details.url;
    if (details.status !== undefined) this.status = details.status;
    if (details.s3Code !== undefined) this.s3Code = details.s3Code;
  }
}

interface ConflictDetails {
  readonly advice?: string;
  readonly cause?: unknown;
}

/**
 * Another writer has published a checkpoint: since this save began, or since the file was loaded
 * from the place or saved to it. Nothing of this save is visible. `advice`: what to do.
 */
export class CheckpointConflictError extends Error {
  override readonly name = "CheckpointConflictError";
  readonly code = "ERR_CHECKPOINT_CONFLICT";
  readonly url: string;

  constructor(
    url: string,
    message: string,
    { advice = "save again to publish on top of it", cause }: ConflictDetails = {},
  ) {
    super(`${message} (${url}); ${advice}`, { cause });
    this.url = url;
  }
}
