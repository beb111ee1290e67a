// One column of the page: a feed's rows and counters and its connection's state, drawn as DOM. Texts of rows are only
// ever set as text, never as markup. Drawing is bound to frames, so that a burst of messages costs one drawing and a
// hidden tab costs none.

const stateNames = {
  idle: 'idle',
  connecting: 'connecting',
  live: 'live',
  waiting: 'reconnecting',
  cut: 'cut',
  refused: 'refused',
};

export class Column {
  #root;
  #feed;
  #connection;
  #rowActions;
  #title;
  #elements = new Map();
  #scheduled = false;

  /** `rowActions` is null where rows cannot be changed. */
  constructor(root, { title, detail, feed, connection, rowActions }) {
    this.#root = root;
    this.#feed = feed;
    this.#connection = connection;
    this.#rowActions = rowActions;
    this.#title = title;
    root.append(document.querySelector('#column').content.cloneNode(true));
    this.#part('title').textContent = title;
    this.#part('detail').textContent = detail;
    feed.onChange(() => this.draw());
    connection.onChange(() => this.draw());
    this.draw();
  }

  /** The result of a cut, beside the rows it is about. */
  showRecovery(text, state) {
    const element = this.#part('recovery');
    element.textContent = text;
    element.dataset.state = state;
    element.hidden = text === '';
  }

  draw() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.#drawState();
      this.#drawRows();
    });
  }

  #part(name) {
    return this.#root.querySelector(`[data-part="${name}"]`);
  }

  #drawState() {
    const { state, detail } = this.#connection;
    const { position, received, duplicates, holes, gaps, lastGap } = this.#feed;
    const badge = this.#part('state');
    badge.textContent = stateNames[state];
    badge.dataset.state = state;
    badge.title = detail;
    this.#part('offset').textContent = position === null ? '–' : String(position.offset);
    this.#part('received').textContent = String(received);
    this.#drawCounter('duplicates', duplicates);
    this.#drawCounter('holes', holes);
    this.#drawCounter('gaps', gaps);
    const note = this.#part('note');
    note.textContent = [detail, lastGap && `Last gap: ${lastGap}; the list was loaded again.`]
      .filter(Boolean)
      .join(' · ');
    note.hidden = note.textContent === '';
  }

  #drawCounter(name, count) {
    const element = this.#part(name);
    element.textContent = String(count);
    element.classList.toggle('alarm', count > 0);
  }

  #drawRows() {
    const list = this.#part('rows');
    const changed = this.#feed.takeChanged();
    const rows = [...this.#feed.rows.values()].sort((a, b) => b.id - a.id);
    for (const [id, element] of this.#elements) {
      if (this.#feed.rows.has(id)) continue;
      element.remove();
      this.#elements.delete(id);
    }
    let next = list.firstElementChild;
    for (const row of rows) {
      const element = this.#elementOf(row);
      if (element === next) next = next.nextElementSibling;
      else list.insertBefore(element, next);
      if (changed.has(row.id)) flash(element);
    }
    this.#part('empty').hidden = rows.length > 0 || !this.#feed.loaded;
  }

  #elementOf(row) {
    let element = this.#elements.get(row.id);
    if (element === undefined) {
      element = document.querySelector('#row').content.firstElementChild.cloneNode(true);
      element.dataset.id = String(row.id);
      const actions = element.querySelector('.actions');
      if (this.#rowActions === null) actions.remove();
      else this.#wire(actions, row.id);
      this.#elements.set(row.id, element);
    }
    element.querySelector('.id').textContent = String(row.id);
    element.querySelector('.title').textContent = row.title;
    element.querySelector('.body').textContent = row.body ?? '';
    return element;
  }

  #wire(actions, id) {
    const [edit, remove] = actions.querySelectorAll('button');
    // Whoever hears the buttons read out has to tell them apart.
    edit.setAttribute('aria-label', `Edit row ${id} in the ${this.#title} list`);
    remove.setAttribute('aria-label', `Delete row ${id} in the ${this.#title} list`);
    edit.addEventListener('click', () => this.#rowActions.edit(this.#feed.rows.get(id)));
    remove.addEventListener('click', () => this.#rowActions.remove(id));
  }
}

// Removing the class alone would not start the animation again for a row that changes twice within one run.
function flash(element) {
  element.classList.remove('flash');
  void element.offsetWidth;
  element.classList.add('flash');
}
