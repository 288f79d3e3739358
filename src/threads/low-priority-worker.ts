/** Entry file of the Workers that leave the processor to the program. */
import { lowerPriority } from "../../ffi/index.ts";
import "./worker.ts";

/**
 * A tenth of a processor that the program wants as well: without that, a program that has used its share stands back behind the
 * task whenever it wakes up. Less would let a load on a busy machine starve, with pages claimed that somebody waits for.
 */
const NICE = 10;

lowerPriority(NICE);
