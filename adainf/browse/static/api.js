// Client of the JSON API. Strings from data are only ever shown as text.

export class ApiError extends Error {}

async function get(path, query, signal) {
  const parameters = Object.entries(query).flatMap(([name, value]) => [value].flat().map((one) => [name, one]))
    .filter(([, value]) => value !== null && value !== undefined && value !== "");
  const response = await fetch(`api/${path}?${new URLSearchParams(parameters)}`, { signal });
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new ApiError(body.error ?? `the server returned status ${response.status}`);
  }
  return response;
}

export const fetchJson = async (path, query = {}, signal = undefined) => (await get(path, query, signal)).json();

export const fetchText = async (path, query) => (await get(path, query)).text();

// A page of samples, each with the `url` of its image; see `page` in app.py for the format.
export async function fetchPage(query, signal) {
  const bytes = await (await get("page", query, signal)).arrayBuffer();
  const length = new DataView(bytes).getUint32(0, true);
  const page = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  let at = 4 + length;
  for (const sample of page.samples) {
    if (sample.error !== undefined) continue;
    sample.url = URL.createObjectURL(new Blob([new Uint8Array(bytes, at, sample.bytes)], { type: sample.type }));
    at += sample.bytes;
  }
  return page;
}

// The points of the map of a source, [real, generated], each x, y, x, y, …; see `map` in app.py for the format.
export async function fetchMap(of) {
  const bytes = await (await get("map", { of })).arrayBuffer();
  const real = new DataView(bytes).getUint32(0, true);
  const points = new Float32Array(bytes, 8); // little endian on every platform with a browser
  return [points.subarray(0, 2 * real), points.subarray(2 * real)];
}

export const imageUrl = (source, shard, number) => `api/image?${new URLSearchParams({ source, shard, number })}`;
