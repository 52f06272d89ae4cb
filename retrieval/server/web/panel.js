// The panel of one item: a large image, its attributes, similar items, and captions that match its image.

import { ask, picture } from "./api.js";
import { hitOf } from "./cards.js";
import { $, button, make, priceElement, shown, spoken, titleOf } from "./dom.js";
import { MOST } from "./state.js";

const CAPTIONS = Math.min(12, MOST);
const LONGEST = 400; // characters of an attribute

let current = "";
let actions;

/** Set what the panel's buttons call: `like(id)`, `variants(item)`, `open(id)`, `close()`. */
export function prepare(does) {
  actions = does;
  const panel = $("panel");
  panel.onclose = () => {
    if (panel.open) return; // another item was opened before this event
    if (current) actions.close();
    current = "";
  };
  panel.addEventListener("click", (event) => event.target === panel && panel.close());
}

/** Show an item; close the panel without an id. */
export async function showItem(id, group) {
  const panel = $("panel");
  if (id === current) return;
  current = id;
  if (!id) {
    if (panel.open) panel.close();
    return;
  }
  const hit = hitOf(id);
  const list = make("div", { className: "captions", "aria-live": "polite" }); // stays when the rest of the item arrives
  $("panel-body").replaceChildren(...(hit ? content({ ...hit, images: [hit] }, { group, list }) : [make("p", { className: "soft" }, "Loading…")]));
  if (!panel.open) panel.showModal();
  panel.scrollTop = 0;
  try {
    const item = await ask(`/items/${encodeURIComponent(id)}`);
    if (current === id) $("panel-body").replaceChildren(...content({ ...item, variants: hit?.variants }, { group, list }));
  } catch (error) {
    if (current === id) $("panel-body").replaceChildren(make("h2", { id: "panel-title" }, id), make("p", {}, error.message));
  }
}

/** Show captions that match the query image. */
export async function describe(url) {
  current = "";
  const list = make("div", {});
  const image = make("img", { src: url, alt: "Your picture" });
  $("panel-body").replaceChildren(
    make("div", { className: "shown" }, make("div", { className: "frame large" }, image)),
    make("div", { className: "told" }, make("h2", { id: "panel-title" }, "Captions for your picture"), list),
  );
  $("panel").showModal();
  await captions({ image: url.split(",")[1] }, list);
}

/** Return the id of the item in the panel, empty if it is closed. */
export const itemShown = () => current;

function content(item, parts) {
  return [make("div", { className: "shown" }, ...pictures(item)), make("div", { className: "told" }, ...told(item, parts))];
}

function pictures(item) {
  const title = titleOf(item);
  const frame = make("div", { className: "frame large" });
  const show = (one) => frame.replaceChildren(picture(sized(one?.image, 960), { alt: title, size: 960, lazy: false }));
  const shownFirst = item.images.find((one) => one.image) ?? item.images[0];
  show(shownFirst);
  if (item.images.length < 2) return [frame];
  const small = item.images.map((one, place) => {
    const choice = button(picture(sized(one.image, 120), { alt: `Picture ${place + 1}`, size: 120 }), () => show(one), "plain frame");
    return choice;
  });
  return [frame, make("div", { className: "others" }, ...small)];
}

const sized = (address, size) => address && `${address}?size=${size}`;

function told(item, { group, list }) {
  const [, ...others] = item.captions ?? [];
  const value = group && item.attributes[group];
  const buttons = make(
    "p",
    { className: "buttons" },
    button("More like this", () => actions.like(item.id), "button primary"),
    item.images.some((one) => one.image) ? button("Captions for this picture", () => captions({ like: item.id }, list)) : null,
    item.variants > 1 && value ? button(`All ${item.variants} variants`, () => actions.variants(group, value)) : null,
  );
  return [
    make("h2", { id: "panel-title" }, titleOf(item)),
    make("p", { className: "under" }, priceElement(item.attributes), make("span", { className: "soft" }, item.id)),
    ...others.map((text) => make("p", {}, text)),
    buttons,
    list,
    table(item.attributes),
  ];
}

function table(attributes) {
  const rows = Object.entries(attributes).map(([name, value]) => {
    const text = shown(value);
    const cell = make("td", {}, text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);
    return make("tr", {}, make("th", { scope: "row" }, spoken(name)), cell);
  });
  return make("table", {}, make("tbody", {}, ...rows));
}

async function captions(query, list) {
  list.replaceChildren(make("p", { className: "soft" }, "Looking for captions…"));
  try {
    const { hits } = await ask("/search", { ...query, target: "captions", k: CAPTIONS });
    const rows = hits.map((hit) =>
      make("li", {}, link(hit), make("span", { className: "soft" }, hit.score.toFixed(2))),
    );
    const heading = make("h3", {}, "Captions that fit best");
    list.replaceChildren(...(rows.length ? [heading, make("ol", {}, ...rows)] : [make("p", { className: "soft" }, "This catalog has no captions.")]));
  } catch (error) {
    list.replaceChildren(make("p", {}, error.message));
  }
}

function link(hit) {
  const onclick = (event) => follow(event, hit.id);
  return make("a", { href: `?item=${encodeURIComponent(hit.id)}`, onclick }, make("span", {}, hit.caption ?? hit.id));
}

function follow(event, id) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  actions.open(id);
}
