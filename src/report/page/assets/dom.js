// Elements and tables. Text is only ever set as text: nothing that comes from elsewhere is read as markup.

const SVG = 'http://www.w3.org/2000/svg';

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) node.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/** An element with its attributes, and children that are nodes or text. */
export const element = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);

/** The same of a drawing. */
export const drawn = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

/** Sets a text, if it is another one: what did not change is not announced, and a selection in it stays. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

let ids = 0;
/** An id that no other element has. */
export const freshId = (prefix) => `${prefix}-${++ids}`;

/** What a cell shows: a text, or an object of `text` with `href`, `note`, `share` (0 to 1, drawn as a bar) or `mono`. */
function fill(cell, value) {
  const told = value !== null && typeof value === 'object' ? value : { text: value };
  const key = JSON.stringify(told);
  if (cell.told === key) return;
  cell.told = key;
  const text = String(told.text ?? '-');
  const inner = told.href ? element('a', { href: told.href }, text) : document.createTextNode(text);
  cell.replaceChildren(inner);
  if (told.note) cell.append(' ', element('span', { class: `note ${told.kind ?? ''}` }, told.note));
  if (known(told.share)) {
    const bar = element('span', { class: 'share', 'aria-hidden': 'true' });
    bar.style.setProperty('--share', String(told.share));
    cell.append(bar);
  }
}

const known = (value) => value !== null && value !== undefined;

/**
 * A table under a heading of its own, in a region that can be scrolled with the keyboard. Rows are known by their key: one
 * that stays keeps its element, and with it the focus.
 *
 * Columns: `title`, `cell(row)`, and where wanted `number` (aligned to the right), `help`, `sort` (a name to sort by).
 */
export class Table {
  constructor({ title, columns, key, onSort, level = 3, hideIfEmpty = false }) {
    Object.assign(this, { columns, key, onSort, hideIfEmpty });
    this.rows = new Map();
    const id = freshId('table');
    this.heading = element(`h${level}`, { id }, title ?? '');
    this.headers = columns.map((column) => this.#header(column));
    this.body = element('tbody');
    const table = element('table', { 'aria-labelledby': id },
      element('thead', {}, element('tr', {}, ...this.headers)), this.body);
    const region = element('div', { class: 'scroll', role: 'region', tabindex: '0', 'aria-labelledby': id }, table);
    this.node = element('section', { class: 'table', 'aria-labelledby': id }, this.heading, region);
  }

  #header(column) {
    const attributes = { scope: 'col', class: column.number ? 'number' : null, title: column.help };
    if (!column.sort) return element('th', attributes, column.title);
    const button = element('button', { type: 'button', class: 'sort' }, column.title);
    button.addEventListener('click', () => this.onSort(column.sort));
    return element('th', attributes, button);
  }

  /** Says by which column the rows are sorted. */
  sorted(by, descending) {
    this.columns.forEach((column, at) => {
      if (!column.sort) return;
      const sorted = column.sort === by;
      if (sorted) this.headers[at].setAttribute('aria-sort', descending ? 'descending' : 'ascending');
      else this.headers[at].removeAttribute('aria-sort');
    });
  }

  update(rows, title) {
    if (known(title)) setText(this.heading, title);
    this.node.hidden = this.hideIfEmpty && rows.length === 0;
    const wanted = new Map(rows.map((row) => [String(this.key(row)), row]));
    for (const [key, line] of this.rows) {
      if (wanted.has(key)) continue;
      line.remove();
      this.rows.delete(key);
    }
    let next = this.body.firstElementChild;
    for (const [key, row] of wanted) {
      const line = this.rows.get(key) ?? this.#line(key);
      this.columns.forEach((column, at) => fill(line.cells[at], column.cell(row)));
      if (line === next) next = next.nextElementSibling;
      else this.body.insertBefore(line, next);
    }
  }

  #line(key) {
    const cells = this.columns.map((column, at) => {
      const attributes = { class: column.number ? 'number' : null };
      return at === 0 ? element('th', { scope: 'row', ...attributes }) : element('td', attributes);
    });
    const line = element('tr', {}, ...cells);
    this.rows.set(key, line);
    return line;
  }
}

/** Buttons that go through the pages of a long list. */
export class Pager {
  constructor(size, onChange) {
    Object.assign(this, { size, onChange, from: 0, total: 0 });
    const button = (text, move) => {
      const node = element('button', { type: 'button' }, text);
      node.addEventListener('click', () => this.#go(move()));
      return node;
    };
    this.newer = button('Previous', () => this.from - this.size);
    this.older = button('Next', () => this.from + this.size);
    this.told = element('span', {});
    this.node = element('div', { class: 'pager', role: 'group', 'aria-label': 'Pages' }, this.newer, this.told, this.older);
  }

  #go(from) {
    this.from = Math.max(0, from);
    this.onChange();
  }

  update(total) {
    this.total = total;
    if (this.from >= total && total > 0) this.from = Math.floor((total - 1) / this.size) * this.size;
    const last = Math.min(this.from + this.size, total);
    setText(this.told, total === 0 ? 'none' : `${this.from + 1} to ${last} of ${total.toLocaleString('en-US')}`);
    this.newer.disabled = this.from === 0;
    this.older.disabled = last >= total;
    this.node.hidden = total <= this.size && this.from === 0;
  }
}

/** Terms and their values, updated in place. */
export class Facts {
  constructor(attributes = { class: 'facts' }) {
    this.node = element('dl', attributes);
    this.values = new Map();
  }

  /** Sets `[term, value, help]` of each; those without a value are left out. */
  update(facts) {
    const told = new Set();
    for (const [term, value, help] of facts.filter(([, value]) => known(value))) {
      told.add(term);
      let kept = this.values.get(term);
      if (!kept) {
        const [name, text] = [element('dt', { title: help }, term), element('dd')];
        kept = { group: element('div', {}, name, text), text };
        this.values.set(term, kept);
        this.node.append(kept.group);
      }
      setText(kept.text, String(value));
    }
    for (const [term, kept] of this.values) kept.group.hidden = !told.has(term);
  }
}
