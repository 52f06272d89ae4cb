// The grid: a card for each hit. Cards of the previous response are reused, so that images do not flicker.

import { picture } from "./api.js";
import { $, priceElement, titleOf } from "./dom.js";

const SIDE = devicePixelRatio > 1.25 ? 480 : 240; // pixels of a thumbnail
const known = new Map();

/** Return the last shown hit of an id, if any. */
export const hitOf = (id) => known.get(id);

/** Render hits instead of the previous ones, or append them. */
export function showHits(hits, { append, addressOf, asked, onLike }) {
  const grid = $("hits");
  const before = new Map([...grid.children].map((card) => [card.dataset.key, card]));
  const best = append ? Number(grid.dataset.best) : (hits[0]?.score ?? 0);
  grid.dataset.best = best;
  const cards = hits.map((hit) => {
    known.set(hit.id, hit);
    const key = `${hit.id} ${hit.thumbnail}`;
    const card = (append ? undefined : before.get(key)) ?? empty(hit, key, onLike);
    fill(card, hit, { best, asked, address: addressOf(hit.id) });
    return card;
  });
  if (append) grid.append(...cards);
  else grid.replaceChildren(...cards);
}

function empty(hit, key, onLike) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  card.dataset.key = key;
  card.dataset.id = hit.id;
  card.querySelector(".frame").append(picture(hit.thumbnail?.replace("size=240", `size=${SIDE}`)));
  card.querySelector(".like").onclick = () => onLike(hit.id);
  return card;
}

function fill(card, hit, { best, asked, address }) {
  const link = card.querySelector(".card");
  link.href = address;
  link.title = asked ? `${hit.id}: score ${hit.score.toFixed(3)}${reasons(hit, ": ")}` : hit.id;
  card.querySelector(".title").textContent = titleOf(hit);
  card.querySelector(".price").replaceWith(priceElement(hit.attributes));
  card.querySelector(".why").textContent = hit.variants > 1 ? `${hit.variants} variants` : asked ? short(hit.ranks) : "";
  card.querySelector(".score").hidden = !asked;
  card.querySelector(".score i").style.width = `${Math.round(100 * Math.min(1, Math.max(0.03, best > 0 ? hit.score / best : 0)))}%`;
}

/** Say whether a hybrid search found a hit by its words or by its vector, unless by both. */
function short(ranks) {
  if (!ranks || (ranks.words && ranks.vectors && !ranks.name)) return "";
  if (ranks.name) return "by name";
  return ranks.words ? "by words" : "by look";
}

const NAMES = { name: "its name was typed", words: "by words", vectors: "by its look" };

function reasons(hit, before) {
  const found = Object.entries(hit.ranks ?? {}).filter(([, rank]) => rank);
  return found.length ? before + found.map(([part, rank]) => (part === "name" ? NAMES.name : `${rank}. ${NAMES[part] ?? part}`)).join(", ") : "";
}
