// Requests to the service with the key that it may need, images included: an <img> cannot send a key.

import { $, icon, make } from "./dom.js";

const KEPT = "retrieval.key";
const MOST_BLOBS = 400;

let key = sessionStorage.getItem(KEPT);
let asking = null;
const blobs = new Map();

/** An error with a message for the user. */
export class Failure extends Error {
  constructor(message, status = 0, wait = 0) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

/** Return the service's JSON; with a `body`, the request is a POST. */
export async function ask(path, body, signal, tries = 4) {
  const response = await get(path, body, signal);
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const wait = Number(response.headers.get("Retry-After"));
  if (response.status === 503 && wait && tries > 1) {
    await new Promise((resolve) => setTimeout(resolve, Math.min(wait, 5) * 1000));
    signal?.throwIfAborted();
    return ask(path, body, signal, tries - 1);
  }
  throw new Failure(answer.error ?? `The service answers ${response.status}.`, response.status, wait);
}

async function get(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const sent = body && { method: "POST", body: JSON.stringify(body), headers: { ...headers, "Content-Type": "application/json" } };
  const used = key;
  let response;
  try {
    response = await fetch(path, { headers, ...sent, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The service does not answer. Is it still running, and is there a connection?");
  }
  if (response.status !== 401) return response;
  if (key === used) await askForKey(used !== null);
  signal?.throwIfAborted();
  return get(path, body, signal);
}

/** Ask for a key once, however many responses need one. */
function askForKey(wasWrong) {
  asking ??= new Promise((resolve) => {
    const dialog = $("key");
    const open = () => dialog.open || dialog.showModal();
    $("key-note").textContent = wasWrong
      ? "That key is not known. Type another one."
      : "Type it here; it is kept until this tab is closed, and sent to this service only.";
    $("key-value").value = "";
    dialog.oncancel = (event) => event.preventDefault();
    dialog.onclose = () => {
      const given = $("key-value").value.trim();
      if (!given) return open();
      key = given;
      sessionStorage.setItem(KEPT, key);
      asking = null;
      resolve();
    };
    open();
  });
  return asking;
}

/** Return an image in a frame; a placeholder if it is missing or unreadable. */
export function picture(address, { alt = "", size = 240, lazy = true } = {}) {
  if (!address) return missing(alt);
  const image = make("img", { alt, width: size, height: size, decoding: "async", loading: lazy ? "lazy" : "eager", draggable: false });
  image.onerror = () => image.replaceWith(missing(alt));
  image.dataset.from = address;
  if (!key) image.src = address;
  else if (blobs.has(address)) image.src = blobs.get(address);
  else if (lazy) seen.observe(image);
  else load(image);
  return image;
}

/** Return the URL of an item's thumbnail. */
export const thumbnailOf = (id, size = 120) => `/items/${encodeURIComponent(id)}/images/0?size=${size}`;

const seen = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      load(target);
    }
  },
  { rootMargin: "400px" },
);

async function load(image) {
  const address = image.dataset.from;
  try {
    const response = await get(address);
    if (!response.ok) throw new Failure("no picture");
    keep(address, URL.createObjectURL(await response.blob()));
    image.src = blobs.get(address);
  } catch {
    image.onerror();
  }
}

function keep(address, blob) {
  blobs.set(address, blob);
  if (blobs.size <= MOST_BLOBS) return;
  const [[oldest, url]] = blobs;
  blobs.delete(oldest);
  URL.revokeObjectURL(url);
}

function missing(alt) {
  return make("span", { className: "missing", role: "img", "aria-label": alt || "No picture" }, icon("missing"));
}
