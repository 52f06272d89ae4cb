// The query image: dropped anywhere, pasted, or chosen; shrunk here, so that it uploads quickly.

import { $ } from "./dom.js";

const SIDE = 512; // pixels: encoders use 224 to 384
const PREFIX = "retrieval.picture.";
const kept = new Map();

/** Return the image of a name as a data URL, also after a reload of this tab; null if another tab had it. */
export const pictureOf = (name) => kept.get(name) ?? sessionStorage.getItem(PREFIX + name);

/** Call `take` with the name of each image that the page receives. */
export function watch(take) {
  const given = async (file) => file && take(keep(await small(file)));
  $("pick").onclick = () => $("file").click();
  $("file").onchange = () => {
    given($("file").files[0]);
    $("file").value = "";
  };
  addEventListener("paste", (event) => {
    const file = pictureIn(event.clipboardData);
    if (!file) return;
    event.preventDefault();
    given(file);
  });
  watchDrops(given);
}

function watchDrops(given) {
  let depth = 0;
  const show = (change) => {
    depth = change === 0 ? 0 : Math.max(0, depth + change);
    $("drop").hidden = depth === 0;
  };
  const brings = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => brings(event) && show(1));
  addEventListener("dragleave", (event) => brings(event) && show(-1));
  addEventListener("dragover", (event) => brings(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    show(0);
    given(pictureIn(event.dataTransfer) ?? event.dataTransfer.files[0]);
  });
}

const pictureIn = (data) => [...(data?.files ?? [])].find((file) => file.type.startsWith("image/"));

function keep(url) {
  const name = Date.now().toString(36);
  kept.set(name, url);
  try {
    Object.keys(sessionStorage).filter((key) => key.startsWith(PREFIX)).slice(0, -9).forEach((key) => sessionStorage.removeItem(key));
    sessionStorage.setItem(PREFIX + name, url);
  } catch {
    // The storage is full: the image lasts until the next reload.
  }
  return name;
}

async function small(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/jpeg", 0.9);
  } catch {
    return asItIs(file); // a format that the browser cannot read: the service may, or reports why not
  }
}

function asItIs(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
