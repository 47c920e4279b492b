// What the job is made of: streams, operators and outputs, as a drawing and as tables.

import { Table, drawn, element } from './dom.js';
import { formatDuration, shortened } from './format.js';

const BOX = { width: 192, height: 44, gapX: 44, gapY: 16, pad: 10 };
const TEXT_CHARACTERS_MAX = 24;

/** The nodes in columns: one is to the right of all that it reads. */
export function layers({ streams, operators, outputs }) {
  const nodes = new Map();
  for (const each of operators) {
    const stream = each.stream === null ? null : streams[each.stream];
    nodes.set(`o${each.id}`, {
      id: `o${each.id}`, kind: stream ? 'stream' : 'operator', name: stream ? stream.name : each.name,
      inputs: each.inputs.map((id) => `o${id}`),
      note: stream ? each.name : each.slideMs === null ? '' : `every ${formatDuration(each.slideMs)}`,
    });
  }
  outputs.forEach((each, at) => nodes.set(`w${at}`, {
    id: `w${at}`, kind: 'output', name: each.name, inputs: each.inputs.map((id) => `o${id}`),
    note: each.tables.length ? each.tables.join(', ') : each.transactional ? 'exactly once' : 'at least once',
  }));
  // Operators come after what they read, in order of definition, so one pass is enough.
  const columns = [];
  for (const node of nodes.values()) {
    node.inputs = node.inputs.filter((id) => nodes.has(id));
    node.column = node.inputs.reduce((most, id) => Math.max(most, (nodes.get(id).column ?? 0) + 1), 0);
    (columns[node.column] ??= []).push(node);
  }
  return { nodes, columns };
}

export class Graph {
  constructor(api) {
    Object.assign(this, { api, title: 'Job' });
    this.drawing = element('div', { class: 'graph scroll', role: 'region', tabindex: '0', 'aria-label': 'The graph' });
    this.operators = new Table({
      title: 'Operators', key: (row) => row.id, columns: [
        { title: 'Operator', cell: (row) => row.id },
        { title: 'Operation', cell: (row) => row.name },
        { title: 'Reads', cell: (row) => (row.stream === null ? row.inputs.join(', ') || '-' : `stream ${row.stream}`) },
        { title: 'Every', cell: (row) => (row.slideMs === null ? 'batch' : formatDuration(row.slideMs)) },
      ],
    });
    this.outputs = new Table({
      title: 'Outputs', key: (row) => row.at, columns: [
        { title: 'Output', cell: (row) => row.at },
        { title: 'Operation', cell: (row) => row.name },
        { title: 'Reads', cell: (row) => row.inputs.join(', ') || '-' },
        { title: 'Tables', cell: (row) => row.tables.join(', ') || '-' },
        { title: 'Promise', cell: (row) => (row.transactional ? 'exactly once: commits with the batch' : 'at least once: a side effect') },
      ],
    });
    this.streams = new Table({
      title: 'Streams', key: (row) => row.at, columns: [
        { title: 'Stream', cell: (row) => row.at }, { title: 'Reads', cell: (row) => row.name },
      ],
    });
    this.left = element('p', { class: 'sentence', hidden: true });
    this.node = element('div', {}, element('h2', { tabindex: '-1' }, 'Job'), this.drawing, this.left, this.streams.node,
      this.operators.node, this.outputs.node);
  }

  async update() {
    // It is told once, at the start.
    if (this.shown) return;
    const graph = await this.api('graph');
    this.shown = graph.operators.length > 0;
    this.#draw(graph);
    this.left.hidden = graph.leftOut === 0;
    this.left.textContent = `${graph.leftOut} nodes more are not shown.`;
    this.streams.update(graph.streams.map((row, at) => ({ ...row, at })), `Streams (${graph.streams.length})`);
    this.operators.update(graph.operators, `Operators (${graph.operators.length})`);
    this.outputs.update(graph.outputs.map((row, at) => ({ ...row, at })), `Outputs (${graph.outputs.length})`);
  }

  #draw(graph) {
    const { nodes, columns } = layers(graph);
    const most = Math.max(1, ...columns.map((column) => column.length));
    const height = most * (BOX.height + BOX.gapY) - BOX.gapY + 2 * BOX.pad;
    const width = columns.length * (BOX.width + BOX.gapX) - BOX.gapX + 2 * BOX.pad;
    columns.forEach((column, at) => {
      const free = height - 2 * BOX.pad - (column.length * (BOX.height + BOX.gapY) - BOX.gapY);
      column.forEach((node, row) => {
        node.x = BOX.pad + at * (BOX.width + BOX.gapX);
        node.y = BOX.pad + free / 2 + row * (BOX.height + BOX.gapY);
      });
    });
    const edges = [...nodes.values()].flatMap((node) => node.inputs.map((id) => edge(nodes.get(id), node)));
    const description = `${graph.streams.length} streams, ${graph.operators.length} operators, ${graph.outputs.length} outputs; the tables below say what reads what`;
    this.drawing.replaceChildren(drawn('svg', { role: 'img', 'aria-label': `The job's graph: ${description}`, width, height, viewBox: `0 0 ${width} ${height}` },
      drawn('title', {}, "The job's graph"), drawn('desc', {}, description), ...edges, ...[...nodes.values()].map(box)));
  }
}

function edge(from, to) {
  const [x1, y1] = [from.x + BOX.width, from.y + BOX.height / 2];
  const [x2, y2] = [to.x, to.y + BOX.height / 2];
  const bend = Math.max(20, (x2 - x1) / 2);
  return drawn('path', { class: 'edge', d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` });
}

function box(node) {
  const middle = node.x + BOX.width / 2;
  const named = node.y + (node.note ? BOX.height / 2 - 3 : BOX.height / 2 + 4);
  const text = (y, className, value) => drawn('text', { x: middle, y, 'text-anchor': 'middle', class: className }, shortened(value, TEXT_CHARACTERS_MAX));
  return drawn('g', { class: `node ${node.kind}` },
    drawn('title', {}, `${node.name}${node.note ? ` (${node.note})` : ''}`),
    drawn('rect', { x: node.x, y: node.y, width: BOX.width, height: BOX.height, rx: node.kind === 'operator' ? 6 : 22 }),
    text(named, 'named', node.name), ...(node.note ? [text(node.y + BOX.height / 2 + 13, 'noted', node.note)] : []));
}
