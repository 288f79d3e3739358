/** A Worker of bare-load.ts. */
import { type BareLoad, readBlocks } from "./bare-load.ts";

const scope = globalThis as unknown as {
  onmessage: ((event: { data: BareLoad }) => void) | null;
  postMessage(message: unknown): void;
};

scope.onmessage = ({ data }) => {
  readBlocks(data);
  scope.postMessage("finished");
};
