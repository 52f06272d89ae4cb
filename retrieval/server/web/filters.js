// The sidebar: values of the remaining items with their counts; a choice in one facet keeps its other values.

import { ask } from "./api.js";
import { $, button, count, make, shown, spoken } from "./dom.js";
import { whereOf, withFilter } from "./state.js";

const LISTED = 6;
const MOST = 40;
const LEAST_SHARE = 0.05; // fraction of the remaining items that must have a facet for it to be shown
const OPEN = 4;

const opened = new Map(); // facets that the user opened or closed
const long = new Set(); // facets whose full list is shown
let counted = "";

/** Set the facets to count: [{attribute, kind}], from GET /facets. */
export function facetsAsked(known, filters, without) {
  const kept = known.filter(({ attribute }) => (without === undefined ? !(attribute in filters) : attribute === without));
  return Object.fromEntries(kept.map(({ attribute, kind }) => [attribute, kind === "numbers" ? 1 : MOST]));
}

/** Count and render the facets under these filters; no request is sent if they are the last ones. */
export async function showFilters(known, filters, onChange, signal) {
  const key = JSON.stringify([known, filters]);
  if (key === counted || !known.length) return;
  counted = ""; // until they are rendered: a choice that is undone meanwhile must be unticked
  const { facets, total } = await counts(known, filters, signal);
  counted = key;
  const shownFacets = known.filter(({ attribute }) => {
    const facet = facets[attribute];
    return attribute in filters || (facet && total - facet.missing > LEAST_SHARE * total && choices(facet) > 1);
  });
  const focused = document.activeElement?.dataset?.focus;
  const parts = shownFacets.map(({ attribute, kind }, place) => section(attribute, facets[attribute], { kind, place, filters, onChange }));
  $("filters").replaceChildren(...parts);
  $("side").classList.toggle("empty", parts.length === 0);
  $("open-filters").hidden = parts.length === 0;
  if (focused) [...$("filters").querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === focused)?.focus();
}

/** Request the counts again next time: the catalog may have changed. */
export function forget() {
  counted = "";
}

async function counts(known, filters, signal) {
  const asked = Object.keys(filters).map((key) => [whereOf(filters, key), facetsAsked(known, filters, key)]);
  asked.push([whereOf(filters), facetsAsked(known, filters)]);
  const answers = await Promise.all(asked.map(([where, facets]) => ask("/search", { k: 1, where, facets }, signal)));
  return { facets: Object.assign({}, ...answers.map((answer) => answer.facets)), total: answers.at(-1).total };
}

const choices = (facet) => Math.max(facet.values.length + facet.other, facet.ranges.length);

function section(attribute, facet, { kind, place, filters, onChange }) {
  const chosen = filters[attribute];
  const change = (value) => onChange(withFilter(filters, attribute, value));
  const isOpen = opened.get(attribute) ?? (place < OPEN || chosen !== undefined);
  const body = kind === "numbers" ? range(attribute, facet, chosen, change) : list(attribute, facet, chosen, change);
  const details = make("details", { open: isOpen }, make("summary", {}, spoken(attribute)), body);
  details.querySelector("summary").onclick = () => opened.set(attribute, !details.open);
  return details;
}

function list(attribute, facet, chosen, change) {
  const picked = Array.isArray(chosen) ? chosen : [];
  const values = [...facet.values];
  for (const value of picked) if (!values.some((one) => one.value === value)) values.unshift({ value, count: 0 });
  const rows = values.map((one) => row(attribute, one, picked, change));
  const box = make("div", { role: "group", "aria-label": spoken(attribute) }, ...rows);
  const rest = rows.slice(LISTED).filter((_, place) => !picked.includes(values[place + LISTED].value));
  if (rest.length > 1) box.append(moreButton(attribute, rest));
  if (facet.other > 0 && long.has(attribute)) box.append(make("p", { className: "soft" }, `${count(facet.other)} rarer ones are not listed.`));
  return box;
}

function row(attribute, { value, count: items }, picked, change) {
  const box = make("input", { type: "checkbox", checked: picked.includes(value), "data-focus": `${attribute}=${value}` });
  box.onchange = () => change(box.checked ? [...picked, value] : picked.filter((one) => one !== value));
  const name = shown(value);
  return make("label", { className: "choice", title: name }, box, make("span", {}, name), make("span", { className: "soft" }, count(items)));
}

function moreButton(attribute, rest) {
  const toggle = button("", () => {
    if (!long.delete(attribute)) long.add(attribute);
    show();
  }, "text");
  const show = () => {
    rest.forEach((one) => (one.hidden = !long.has(attribute)));
    toggle.textContent = long.has(attribute) ? "Fewer" : `${rest.length} more`;
    toggle.setAttribute("aria-expanded", long.has(attribute));
  };
  show();
  return toggle;
}

function range(attribute, facet, chosen = {}, change) {
  const [low, high] = [facet?.min, facet?.max].map((one) => (one === null || one === undefined ? "" : String(one)));
  const from = bound(attribute, "from", chosen.from, low);
  const to = bound(attribute, "to", chosen.to ?? chosen.below, high);
  const set = () => change({ ...number("from", from), ...number("to", to) });
  from.onchange = to.onchange = set;
  const most = Math.max(1, ...(facet?.ranges ?? []).map((one) => one.count));
  const buckets = (facet?.ranges ?? []).filter((one) => one.count).map((one) => bucket(attribute, one, { chosen, most, change }));
  return make("div", { role: "group", "aria-label": spoken(attribute) }, ...buckets, make("div", { className: "bounds" }, from, "–", to));
}

function bound(attribute, name, value, placeholder) {
  const label = `${spoken(attribute)} ${name}`;
  return make("input", { type: "number", step: "any", value: value ?? "", placeholder, "aria-label": label, "data-focus": label });
}

const number = (name, input) => (input.value !== "" && Number.isFinite(input.valueAsNumber) ? { [name]: input.valueAsNumber } : {});

function bucket(attribute, { from, to, count: items }, { chosen, most, change }) {
  const value = { ...(from === null ? {} : { from }), ...(to === null ? {} : { below: to }) };
  const isChosen = chosen.from === value.from && chosen.below === value.below && chosen.to === undefined;
  const label = rangeText(value);
  const element = button("", () => change(isChosen ? {} : value), "bucket");
  element.dataset.focus = `${attribute} ${label}`;
  element.setAttribute("aria-pressed", isChosen);
  const bar = make("i", {});
  bar.style.width = `${(100 * items) / most}%`;
  element.append(make("span", {}, label), make("span", { className: "soft" }, count(items)), bar);
  return element;
}

/** Format a range: "20 to 40", "under 20", "from 80". */
export function rangeText({ from, to, below }) {
  const high = to ?? below;
  if (from === undefined) return `${to === undefined ? "under" : "up to"} ${shown(high)}`;
  return high === undefined ? `from ${shown(from)}` : `${shown(from)} to ${shown(high)}`;
}
