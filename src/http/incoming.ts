/** Incoming: an answer from a transport, before it is checked. */
export interface Incoming {
  readonly status: number;
  readonly headers: Headers;
  /** False for answers that never have a body, such as those to HEAD. */
  readonly hasBody: boolean;
  /**
   * Passes each piece of the body to `take`, which may throw. Resolves at the end of the body.
   * Called at most once. Rejects with the reason of an abort, or with the connection's error.
   */
  read(take: (piece: Uint8Array) => void): Promise<void>;
}

/** One request for a transport, which follows, decodes and repeats nothing. */
export interface Outgoing {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string | undefined;
  /** Ends the request and its answer. */
  readonly signal: AbortSignal;
}
