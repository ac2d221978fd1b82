/* Continuations: a token of what follows is clicked, and the tokens before it are coloured by its
   scores; all of them are rows of a heat map. Whatever comes from the run is set as text. */

class Continuations {
  constructor(data) {
    this.data = data;
    this.row = 0;
    this.asked = 0;
    const offer = (id, names) => names.forEach((name, at) => {
      const option = element("option", "", name);
      option.value = String(at);
      byId(id).append(option);
    });
    offer("continuation-row", data.rows.map((row) => row.id));
    offer("continuation-method", data.methods.map((method) => method.name));
    byId("continuation-row").addEventListener("input", (event) => this.show(Number(event.target.value)));
    byId("continuation-method").addEventListener("input", () => this.draw());
    const turn = (by) => () => {
      const count = data.rows.length;
      this.show((this.row + by + count) % count);
      byId("continuation-row").value = String(this.row);
    };
    byId("continuation-before").addEventListener("click", turn(-1));
    byId("continuation-after").addEventListener("click", turn(1));
    this.show(0);
  }

  show(row) {
    this.row = row;
    this.asked = 0;
    this.draw();
  }

  get method() { return this.data.methods[Number(byId("continuation-method").value)]; }

  /* Scores of each question about the row that is shown; NaN where there are none. */
  matrix() {
    const { questions, special } = this.data.rows[this.row];
    const hidden = new Set(special);
    const values = numbers(Int8Array, this.method.scores[this.row]);
    const scales = numbers(Float32Array, this.method.scales[this.row]);
    let start = 0;
    return questions.map((question, number) => {
      const own = Array.from(values.subarray(start, start + question.length), (value, at) =>
        (value === NOT_A_NUMBER ? NaN : value / 127 * scales[2 * number + (hidden.has(at) ? 1 : 0)]));
      start += question.length;
      return own;
    });
  }

  /* A class and a strength from 0 to 1; special tokens do not count in what the largest is. */
  colour(scores) {
    const hidden = new Set(this.data.rows[this.row].special);
    const most = Math.max(0, ...scores.filter((s, at) => !hidden.has(at) && !Number.isNaN(s)).map(Math.abs));
    const { signed } = this.method;
    return (place, score) => {
      if (Number.isNaN(score)) { place.classList.add("nan"); return; }
      const strength = most > 0 ? Math.min(1, Math.abs(score) / most) : 0;
      place.classList.add(signed ? (score < 0 ? "neg" : "pos") : "seq");
      place.style.setProperty("--a", strength.toFixed(3));
    };
  }

  draw() {
    const row = this.data.rows[this.row];
    const matrix = this.matrix();
    this.drawText(row, matrix[this.asked]);
    this.drawSegments(row, matrix[this.asked]);
    this.drawMap(row, matrix);
    byId("continuation").dataset.drawn = `${this.row}/${this.asked}/${this.method.name}`;
  }

  ask(number) {
    this.asked = number;
    this.draw();
  }

  /* The prompt, and what follows as buttons. */
  drawText(row, scores) {
    const paint = this.colour(scores);
    const hidden = new Set(row.special);
    const token = (at, name) => {
      const made = element(name, hidden.has(at) ? "t s" : "t", row.tokens[at]);
      if (at < scores.length) {
        made.title = `${row.tokens[at]}: ${shown(scores[at])}`;
        paint(made, scores[at]);
      }
      return made;
    };
    const prompt = element("p", "prompt");
    for (let at = 0; at < row.prompt; at++) prompt.append(token(at, "span"), " ");
    const said = element("p", "said");
    said.setAttribute("role", "group");
    said.setAttribute("aria-label", "What follows");
    row.questions.forEach((question, number) => {
      const at = row.prompt + question.number;
      const inside = question.number !== null && at < scores.length;
      const button = inside ? token(at, "button")
        : element("button", "t", question.number === null ? "all of it" : question.token);
      button.type = "button";
      button.classList.toggle("all", question.number === null);
      button.setAttribute("aria-pressed", String(number === this.asked));
      button.addEventListener("click", () => this.ask(number));
      said.append(button, " ");
    });
    byId("continuation-text").replaceChildren(prompt, said);
    byId("continuation-facts").textContent = this.facts(row, scores);
  }

  facts(row, scores) {
    const question = row.questions[this.asked];
    const parts = [];
    if (question.logProb !== null) {
      const share = 100 * Math.exp(question.logProb);
      const percent = share >= 0.1 ? `${share.toFixed(1)} %` : `e^${question.logProb.toFixed(1)}`;
      parts.push(`${question.number === null ? "all of it" : `“${question.token}”`}: ${percent}`);
    }
    if (question.rank !== null) parts.push(`rank ${question.rank}`);
    if (question.against !== null) {
      parts.push(`${question.foil ? "foil" : "runner-up"} “${question.against}”`);
    }
    parts.push(row.given ? "given by the corpus" : "said by the model");
    if (row.truncated) parts.push("the prompt's start is cut off");
    if (scores.every(Number.isNaN)) parts.push(`${this.method.name} has no scores here`);
    return parts.join(" · ");
  }

  /* Whether the score of a token counts in a part: what several share counts once. */
  counts(row, first, at) {
    const { shared } = this.method;
    return shared === "token" || at === first || (shared === "word" && row.words.includes(at));
  }

  /* Parts of the prompt, the one of the largest sum first. */
  drawSegments(row, scores) {
    const place = byId("continuation-segments");
    const sums = row.segments.map(([kind, first, last]) => {
      const own = scores.slice(first, last + 1)
        .filter((s, at) => !Number.isNaN(s) && this.counts(row, first, first + at));
      const text = row.tokens.slice(first, last + 1).join(" ");
      return { kind, text, sum: own.reduce((total, s) => total + s, 0) };
    });
    place.closest("details").hidden = sums.length === 0;
    sums.sort((a, b) => b.sum - a.sum);
    const most = Math.max(...sums.map(({ sum }) => Math.abs(sum)), 0);
    place.replaceChildren(...sums.map(({ kind, text, sum }) => {
      const item = element("li");
      const bar = element("span", sum < 0 ? "bar neg" : `bar ${this.method.signed ? "pos" : "seq"}`);
      bar.style.setProperty("--w", most > 0 ? (Math.abs(sum) / most).toFixed(3) : "0");
      item.append(bar, element("span", "kind", kind), element("span", "part", text),
        element("span", "sum", shown(sum)));
      return item;
    }));
  }

  /* Rows are what follows, columns all before it. */
  drawMap(row, matrix) {
    const table = element("table", "heat");
    const names = element("tr");
    names.append(element("td"));
    row.tokens.forEach((token, at) => {
      const cell = element("th", row.special.includes(at) ? "s" : "");
      cell.scope = "col";
      cell.append(element("span", "", token));
      names.append(cell);
    });
    const head = element("thead");
    head.append(names);
    const body = element("tbody");
    row.questions.forEach((question, number) => {
      const line = element("tr", number === this.asked ? "asked" : "");
      const name = question.number === null ? "all of it" : question.token;
      const header = element("th");
      header.scope = "row";
      const button = element("button", "", name);
      button.type = "button";
      button.addEventListener("click", () => this.ask(number));
      header.append(button);
      line.append(header);
      const paint = this.colour(matrix[number]);
      row.tokens.forEach((token, at) => {
        const score = matrix[number][at];
        const cell = element("td", at >= row.prompt ? "cell later" : "cell");
        if (score !== undefined) {
          paint(cell, score);
          cell.title = `${name} from ${token}: ${shown(score)}`;
        }
        line.append(cell);
      });
      body.append(line);
    });
    table.append(head, body);
    byId("continuation-map").replaceChildren(table);
  }
}

if (byId("continuations-data")) new Continuations(parsed("continuations-data"));
