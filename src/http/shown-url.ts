/**
 * Addresses as messages show them. A query may be a signature, and some programs put credentials
 * before the host.
 */

/** An address that was requested: without its query, and without a user's name. */
export function shownUrl(url: string): string {
  const parsed = URL.parse(url);
  return parsed === null ? "" : `${parsed.protocol}//${parsed.host}${parsed.pathname}`;
}

/** `user:password@`, also with a "/" in the password. Not the start of `host:80/a@b`. */
const USER = /^[^/?#:]*(?::(?!\d{1,5}(?:[/?#]|$))[^?#]*)?@/;

/** A place as the program gave it, valid or not: "…" stands for what may be secret. */
export function shownPlace(where: string): string {
  const [scheme] = /^[a-z][a-z0-9+.-]*:\/\//i.exec(where) ?? [];
  // A directory's name may have any character.
  if (scheme === undefined) return where;
  const rest = where.slice(scheme.length).replace(USER, "…@");
  return scheme + rest.replace(/\?[^#]*/, "?…").replace(/#.*$/s, "#…");
}
