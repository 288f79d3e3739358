/**
 * A Worker that moves money between the pages of its part of a file, turn after turn, until it is
 * told to end.
 */
import { MemoryFile, type MemoryFileHandle } from "../../../src/index.ts";
import { Accounts, wordsOf } from "./accounts.ts";

declare const self: {
  onmessage: ((event: { data: Start | "end" }) => void) | null;
  postMessage(message: string): void;
};

export interface Start {
  readonly handle: MemoryFileHandle;
  readonly bytes: number;
  readonly from: number;
  readonly to: number;
}

let isOver = false;

self.onmessage = ({ data }) => {
  if (data === "end") {
    isOver = true;
    return;
  }
  const file = MemoryFile.attach(data.handle);
  const accounts = new Accounts(wordsOf(file, data.bytes), data.from);
  const turn = () => {
    if (isOver) {
      self.postMessage("ended");
      return;
    }
    accounts.transfer(20, data.from, data.to);
    setTimeout(turn, 1);
  };
  turn();
  self.postMessage("started");
};
