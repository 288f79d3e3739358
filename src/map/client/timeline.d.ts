/** timeline.js as text, for the page that contains it. */
declare const text: string;
export default text;
