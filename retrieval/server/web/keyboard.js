// Keys: "/" focuses the search box, arrows move among cards and items, "m" finds similar ones, Escape goes back.

import { $ } from "./dom.js";
import { itemShown } from "./panel.js";

const ARROWS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"]);

/** Listen for keys; some of them call `like(id)`, `step(id)` or `clear()`. */
export function prepare({ like, step, clear }) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const did = $("panel").open ? inPanel(event, { like, step }) : !document.querySelector("dialog[open]") && onPage(event, { like, clear });
    if (did) event.preventDefault();
  });
}

function inPanel({ key }, { like, step }) {
  if (key === "m" && itemShown()) like(itemShown());
  else if (key === "ArrowLeft" || key === "ArrowRight") return move(key, cardOf(itemShown()), step);
  else return false;
  return true;
}

function onPage({ key, target }, { like, clear }) {
  const typing = target.matches("input:not([type=checkbox]), select, textarea");
  const card = target.closest?.("#hits > li");
  if (key === "Escape" && target === $("q")) clear();
  else if (key === "Escape" && card) $("q").focus();
  else if (key === "ArrowDown" && target === $("q")) links()[0]?.focus();
  else if (typing) return false;
  else if (key === "/") $("q").select();
  else if (key === "m" && card) like(card.dataset.id);
  else if (ARROWS.has(key) && card) focusFrom(key, card);
  else return false;
  return true;
}

const links = () => [...document.querySelectorAll("#hits .card")];

const cardOf = (id) => [...$("hits").children].find((card) => card.dataset.id === id);

function focusFrom(key, card) {
  const next = neighbour(key, card);
  if (next) next.querySelector(".card").focus();
  else if (key === "ArrowUp") $("q").focus();
}

function move(key, card, step) {
  const next = card && neighbour(key, card);
  if (next) step(next.dataset.id);
  return Boolean(next);
}

function neighbour(key, card) {
  const cards = [...$("hits").children];
  const columns = cards.findIndex((one) => one.offsetTop > cards[0].offsetTop);
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  return steps[key] ? cards[cards.indexOf(card) + steps[key]] : undefined;
}
