// Elements, made and changed without markup: whatever a text holds, it stays text.

/** An element with a class, attributes and children; a string is a text. */
export function element(name, { class: names, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  if (names) made.className = names;
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

/** Changes the text of an element if it is another one, so that nothing is laid out again for nothing. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows or hides an element. */
export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/** Sets an attribute, or removes it where there is no value. */
export function set(node, attribute, value) {
  if (value === null || value === undefined) node.removeAttribute(attribute);
  else if (node.getAttribute(attribute) !== String(value)) node.setAttribute(attribute, value);
}

/** Makes the children of `parent` those of `wanted`, in order, and moves only what is out of place. */
export function arrange(parent, wanted) {
  let next = parent.firstChild;
  for (const node of wanted) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
}

/** A list of terms with their texts, of which each stays the same element. */
export class Facts {
  #list;
  #rows = new Map();

  constructor(list) {
    this.#list = list;
  }

  /** Shows these pairs of term and text, or of term and nodes, without those whose text is `null`. */
  update(pairs) {
    const shown = pairs.filter(([, text]) => text !== null && text !== undefined);
    arrange(this.#list, shown.map(([term, text]) => {
      let row = this.#rows.get(term);
      if (!row) {
        row = element('div', {}, element('dt', {}, term), element('dd'));
        this.#rows.set(term, row);
      }
      if (text instanceof Node) arrange(row.lastChild, [text]);
      else say(row.lastChild, text);
      return row;
    }));
  }
}
