// Elements. Every text is inserted as text: a catalog's contents are never parsed as markup.

export const $ = (id) => document.getElementById(id);

/** Create an element with properties, `class`, `data-` and `aria-` attributes, and children: elements or texts. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export function button(label, onclick, className = "button") {
  return make("button", { type: "button", className, onclick }, label);
}

export const count = (number) => number.toLocaleString();

export const counted = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** Format "item_group_id" as "Item group id". */
export function spoken(name) {
  const words = name.replace(/[_.]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Format an attribute's value for people. */
export function shown(value) {
  if (value === true) return "Yes";
  if (value === false) return "No";
  if (typeof value === "number") return value.toLocaleString(undefined, { maximumFractionDigits: 4, useGrouping: false });
  if (Array.isArray(value)) return value.map(shown).join(", ");
  return value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Return an item's price and, if it is reduced, its former price; null if it has none. */
export function priceOf(attributes) {
  const amount = attributes.price;
  if (amount === undefined || amount === null) return null;
  const reduced = attributes.sale_price ?? attributes.special_price;
  const isReduced = typeof reduced === "number" && typeof amount === "number" && reduced < amount;
  const currency = attributes.currency ?? attributes.price_currency;
  return { now: money(isReduced ? reduced : amount, currency), before: isReduced ? money(amount, currency) : "" };
}

function money(amount, currency) {
  if (typeof amount !== "number") return shown(amount);
  const known = typeof currency === "string" && /^[A-Z]{3}$/.test(currency);
  return amount.toLocaleString(undefined, known ? { style: "currency", currency } : { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

export function priceElement(attributes, className = "price") {
  const price = priceOf(attributes);
  const element = make("b", { className });
  if (price) element.append(price.now, ...(price.before ? [" ", make("s", {}, price.before)] : []));
  return element;
}

export const titleOf = (item) => item.caption || item.captions?.[0] || shown(item.attributes?.title ?? item.attributes?.name ?? item.id);
