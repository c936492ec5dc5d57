// What the server is asked for. Whatever comes from data is a string here, and is only ever shown as text.

export class Refused extends Error {}

async function get(path, query, signal) {
  const wanted = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const answer = await fetch(`api/${path}?${new URLSearchParams(wanted)}`, { signal });
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refused(said.problem ?? `the server answered ${answer.status}`);
  }
  return answer;
}

export const ask = async (path, query = {}, signal = undefined) => (await get(path, query, signal)).json();

// A page of samples, each with the `url` of its picture; see `page` in server.py for the bytes.
export async function askPage(query, signal) {
  const bytes = await (await get("page", query, signal)).arrayBuffer();
  const length = new DataView(bytes).getUint32(0, true);
  const page = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  let at = 4 + length;
  for (const sample of page.samples) {
    if (sample.problem !== undefined) continue;
    sample.url = URL.createObjectURL(new Blob([new Uint8Array(bytes, at, sample.bytes)], { type: sample.type }));
    at += sample.bytes;
  }
  return page;
}

// The points of the map of a source, [real, generated], each x, y, x, y, …; see `map` in server.py for the bytes.
export async function askMap(of) {
  const bytes = await (await get("map", { of })).arrayBuffer();
  const real = new DataView(bytes).getUint32(0, true);
  const points = new Float32Array(bytes, 8); // little endian, as every machine with a browser is
  return [points.subarray(0, 2 * real), points.subarray(2 * real)];
}

export const imageUrl = (source, shard, number) => `api/image?${new URLSearchParams({ source, shard, number })}`;
