// The page's address: after "?" the filters, after "#" the key of the row that was opened
// last.

/** Return the address that shows everything of a person. */
export function addressOfPerson(person: string): string {
  return `?${new URLSearchParams({ person })}`;
}

/** Return the filters that the address has, by their names. */
export function filtersInAddress(): URLSearchParams {
  return new URLSearchParams(location.search);
}

/** Let the address have these filters. */
export function setFilters(filters: URLSearchParams): void {
  replaceAddress(String(filters), keyInAddress());
}

/** Return the key of the row that the address is of; empty if it is of none. */
export function keyInAddress(): string {
  return location.hash.slice(1);
}

/** Let the address be of a row; of none, if the key is empty. */
export function setKey(key: string): void {
  if (key !== keyInAddress()) replaceAddress(location.search.slice(1), key);
}

/** Change the address without a step back for each letter that is typed. */
function replaceAddress(query: string, key: string): void {
  const address = location.pathname + (query && `?${query}`) + (key && `#${key}`);
  history.replaceState(null, "", address);
}
