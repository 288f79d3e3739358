/** The reader of S3's answers. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { elementsOf, encode, textOf } from "../../src/http/xml.ts";

test("textOf returns every text that encode wrote", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      expect(textOf(`<a><Key>x${encode(text)}x</Key></a>`, "Key")).toBe(`x${text}x`);
    }),
  );
});

test("elementsOf finds elements with and without attributes, and accepts any text", () => {
  expect(elementsOf('<r xmlns="x"><a>1</a><ab>2</ab><a z="1">3</a><a>4', "a")).toEqual(["1", "3"]);
  fc.assert(
    fc.property(fc.string(), (text) => {
      elementsOf(`<a>${text}`, "a");
    }),
  );
});

test("textOf decodes only XML's own entities", () => {
  expect(textOf("<a>&lt;&amp;&#65;&#x42;&nope;&#x110000;</a>", "a")).toBe("<&AB&nope;&#x110000;");
});
