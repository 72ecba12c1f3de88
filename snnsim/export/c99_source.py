"""The text of the C99 header and source of a network, from its layout."""

from __future__ import annotations

from importlib.resources import files

from snnsim.export.c99_layout import Layout, Numbers, PopulationLayout, ProjectionLayout, Table
from snnsim.kernels.reference_integer_fixed import CURRENT_LIMIT, DECAY_ONE, MEMBRANE_LIMIT
from snnsim.kernels.reference_integer_scores import SOFTMAX_END

__all__ = ["header_text", "host_text", "source_text"]


def _template(name: str, prefix: str) -> str:
    text = (files("snnsim.export") / name).read_text(encoding="utf-8")
    return text.replace("@P@", prefix).replace("@U@", prefix.upper())


def host_text(prefix: str) -> str:
    """Return the program that runs a network on a host."""
    return _template("c99_host.c.in", prefix)


def header_text(layout: Layout, prefix: str, digest: str) -> str:
    """Return the header: the interface and the arrays that may be read."""
    upper = prefix.upper()
    spiking = [item for item in layout.populations if item.spiking]
    names = ", ".join(f"{name} ({size})" for name, size in layout.inputs)
    classes = 0 if layout.readout is None else layout.populations[layout.readout].size
    lines = [
        f"/* A spiking network in integers, law 'fixed'; written by snnsim, network {digest[:16]}.",
        f" * Inputs: {names}. Their units are numbered through from 0.",
        f" * Constant tables: {layout.table_bytes} bytes; memory: {layout.state_bytes} bytes; nothing is allocated. */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        "#include <stdint.h>",
        "",
        f"#define {upper}_INPUTS {sum(size for _, size in layout.inputs)}u",
        f"#define {upper}_CLASSES {classes}",
        "",
        "/* The most events of one input unit in one step for which all sums are proven to fit. */",
        f"#define {upper}_MAX_COUNT {layout.max_count}u",
        "",
        "/* X(name, size) for every layer with a threshold, and for every population. */",
        f"#define {upper}_LAYERS(X) {' '.join(f'X({item.name}, {item.size}u)' for item in spiking)}",
        f"#define {upper}_POPULATIONS(X) {' '.join(f'X({item.name}, {item.size}u)' for item in layout.populations)}",
        "",
        "/* Return to the state before the first step. */",
        f"void {prefix}_reset(void);",
        "",
        "/* Advance by one step. units: input units with an event, n of them; a unit may be listed several times, best",
        " * one after the other. Returns 0, or -1 and does nothing if a unit is not below the number of inputs. */",
        f"int {prefix}_step(const uint16_t *units, uint16_t n);",
    ]
    if classes:
        lines += [
            "",
            f"/* {_score_sentence(layout)} */",
            f"extern int{layout.score_bits}_t {prefix}_scores[{upper}_CLASSES];",
            "",
            "/* The class with the largest score, the first of equal ones. */",
            f"uint16_t {prefix}_best(void);",
        ]
    lines += ["", "/* Neurons that fired in the last step, in ascending order. */"] if spiking else []
    for item in spiking:
        lines.append(f"extern uint16_t {prefix}_n_spikes_{item.name};")
        lines.append(f"extern uint{item.unit_bits}_t {prefix}_spikes_{item.name}[{item.size}];")
    lines += ["", "/* Membranes after the last step. */"]
    for item in layout.populations:
        lines.append(f"extern int{item.v_bits}_t {prefix}_v_{item.name}[{item.size}];")
    lines += [
        "",
        f"/* With {upper}_COUNT defined: synapses walked and neurons updated since these were last set to 0. */",
        f"#ifdef {upper}_COUNT",
        f"extern uint64_t {prefix}_operations, {prefix}_updates;",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _score_sentence(layout: Layout) -> str:
    what = "membrane" if layout.variable == "v" else "spike (0 or 1)"
    how = {"max": "largest", "last": "last", "mean": "sum over steps of the", "count": "sum over steps of the"}
    if layout.softmax_bits is not None:
        return "The sum over steps of the softmax of the membranes, in units of 2^-15."
    after = f" after the first {layout.skip_steps} steps" if layout.skip_steps else ""
    return f"The {how[layout.reduce]} {what} of every neuron of the readout{after}."


def source_text(layout: Layout, prefix: str) -> str:
    """Return the source: tables, state and functions."""
    return _Source(layout, prefix).text()


class _Source:
    def __init__(self, layout: Layout, prefix: str) -> None:
        self.layout = layout
        self.prefix = prefix
        self.upper = prefix.upper()
        self.by_name = {item.name: item for item in layout.populations}

    def text(self) -> str:
        parts = [f'#include "{self.prefix}.h"\n\n{_template("c99_source.c.in", self.prefix)}']
        parts += [self.table(item) for item in self.layout.tables()]
        parts.append(self.state())
        parts += [self.send(item) for item in self.layout.projections]
        for item in self.layout.populations:
            parts.append(self.update(item))
        if self.layout.readout is not None:
            parts.append(self.read())
        parts += [self.reset(), self.step()]
        return "\n".join(parts)

    def table(self, item: Table) -> str:
        words = [str(int(value)) for value in item.values]
        rows = [", ".join(words[k : k + 20]) for k in range(0, len(words), 20)]
        body = ",\n    ".join(rows)
        head = f"static const {item.c_type} {self.prefix}_{item.name}[{item.values.size}] {self.upper}_TABLE"
        return f"/* {_comment(item.what)} */\n{head} = {{\n    {body}}};\n"

    def value(self, item: Numbers, index: str) -> str:
        """Return the expression of a parameter or a word of a table."""
        if isinstance(item, Table):
            return f"({item.c_type}){self.upper}_READ{item.bits}({self.prefix}_{item.name}[{index}])"
        return f"({item})" if item < 0 else str(item)

    def state(self) -> str:
        readable = {"v", "spikes", "n", "scores"}
        lines = ["/* State. */"]
        signed = {"v", "i", "ring", "scores"}
        for name, words, bits in self.layout.arrays():
            kind = name.split("_")[0]
            of = f"{'' if kind in signed else 'u'}int{bits}_t"
            extent = "" if words == 1 and kind in ("n", "slot", "steps") else f"[{words}]"
            lines.append(f"{'' if kind in readable else 'static '}{of} {self.prefix}_{name}{extent};")
        return "\n".join(lines) + "\n"

    def send(self, item: ProjectionLayout) -> str:
        """Write the function that walks the synapses of one unit that fired."""
        p, target = self.prefix, self.by_name[item.target]
        span = max(int(item.weight.values.size), target.slots * target.size, 2 * target.slots)
        index = "uint16_t" if span < 65536 else "uint32_t"
        cell, plain = f"int{target.ring_bits}_t", f"uint{target.ring_bits}_t"
        times = ", uint16_t times" if item.from_input else ""
        ring = f"{p}_ring_{target.name}"
        slot = f"{p}_slot_{target.name}" if target.slots > 1 else "0"
        lines = [f"static void {p}_send_{item.number}(uint16_t source{times})", "{"]
        if item.begin is None:
            lines += [f"    {index} k = ({index})(({index})source * {item.n_target}u);", "    uint16_t unit;"]
        else:
            lines.append(f"    {index} k = ({index}){self.value(item.begin, 'source')};")
            lines.append(f"    {index} end = ({index}){self.value(item.begin, 'source + 1u')};")
        fixed = isinstance(item.delay, int)
        wait = None
        if fixed:
            lines += self.slot(index, slot, self.value(item.delay, ""), target, "    ")
            lines.append(f"    {cell} *cells = {ring} + ({index})(slot * {target.size}u);")
        elif isinstance(item.delay, Table):
            wait = self.value(item.delay, "k")
        if item.begin is None:
            lines.append(f"    for (unit = 0; unit < {item.n_target}u; unit++, k++) {{")
        else:
            lines.append("    for (; k < end; k++) {")
            assert item.unit is not None
            lines.append(f"        uint16_t unit = {self.value(item.unit, 'k')};")
        lines.append(f"        {cell} weight = ({cell}){self.value(item.weight, 'k')};")
        if wait is not None:
            lines += self.slot(index, slot, wait, target, "        ")
            lines.append(f"        {cell} *cell = {ring} + ({index})(slot * {target.size}u + unit);")
        else:
            lines.append(f"        {cell} *cell = cells + unit;")
        added = "(uint32_t)weight * times" if item.from_input else "weight"
        lines.append(f"        *cell = ({cell})(({plain})*cell + ({plain})({added}));")
        lines.append(f"        {self.upper}_TALLY({p}_operations, weight != 0);")
        lines += ["    }", "}", ""]
        return "\n".join(lines)

    def slot(self, index: str, now: str, delay: str, target: PopulationLayout, indent: str) -> list[str]:
        if target.slots == 1:
            return [f"{indent}{index} slot = 0;"]
        return [
            f"{indent}{index} slot = ({index})({now} + {delay});",
            f"{indent}if (slot >= {target.slots}u)",
            f"{indent}    slot = ({index})(slot - {target.slots}u);",
        ]

    def arrivals(self, item: PopulationLayout) -> str:
        slot = f" + (uint32_t){self.prefix}_slot_{item.name} * {item.size}u" if item.slots > 1 else ""
        return f"    int{item.ring_bits}_t *arrivals = {self.prefix}_ring_{item.name}{slot};"

    def shifted(self, item: PopulationLayout) -> str:
        shift = item.parameters["shift"]
        if shift == 0:
            return "(uint32_t)arrived"
        return f"((uint32_t)arrived << {self.value(shift, 'j')})"

    def decayed(self, variable: str, factor: Numbers) -> list[str]:
        if factor == 0:
            return []
        if factor == DECAY_ONE:
            return [f"(uint32_t){variable}"]
        return [f"(uint32_t){self.prefix}_decay({variable}, {self.value(factor, 'j')})"]

    def term(self, item: Numbers) -> list[str]:
        """Return a constant term of a sum; none for 0."""
        return [] if isinstance(item, int) and item == 0 else [f"(uint32_t){self.value(item, 'j')}"]

    @staticmethod
    def clamped(variable: str, limit: int, reachable: bool, indent: str) -> list[str]:
        if not reachable:
            return []
        return [
            f"{indent}if ({variable} > {limit})",
            f"{indent}    {variable} = {limit};",
            f"{indent}else if ({variable} < -{limit})",
            f"{indent}    {variable} = -{limit};",
        ]

    def update(self, item: PopulationLayout) -> str:
        """Write the function that advances one population by one step."""
        p, name, q = self.prefix, item.name, item.parameters
        lines = [f"static void {p}_update_{name}(void)", "{", "    uint16_t j;"]
        if item.spiking:
            lines.append("    uint16_t fired = 0;")
        if item.slots:
            lines.append(self.arrivals(item))
        lines.append(f"    for (j = 0; j < {item.size}u; j++) {{")
        lines.append(f"        int32_t v = {p}_v_{name}[j];")
        terms = [*self.decayed("v", q["beta"]), *self.term(q["drive"])]
        if item.current:
            lines.append(f"        int32_t i = {p}_i_{name}[j], next;")
            terms.append("(uint32_t)i")
        if item.slots:
            lines.append("        int32_t arrived = arrivals[j];")
            terms += [] if item.current else [self.shifted(item)]
        if item.slots:
            lines.append("        arrivals[j] = 0;")
        if item.current:
            lines += self.current(item)
        if item.left_bits:
            lines += [
                f"        if ({p}_left_{name}[j] > 0) {{",
                f"            {p}_left_{name}[j]--;",
                "            continue;",
                "        }",
            ]
        lines.append(f"        v = (int32_t)({' + '.join(terms or ['0u'])});")
        lines += self.clamped("v", MEMBRANE_LIMIT, item.clamp_v, "        ")
        if item.spiking:
            lines.append(f"        if (v >= {self.value(q['v_threshold'], 'j')}) {{")
            lines += self.after_spike(item)
            if item.left_bits:
                steps = f"(uint{item.left_bits}_t){self.value(q['refractory_steps'], 'j')}"
                lines.append(f"            {p}_left_{name}[j] = {steps};")
            lines += [f"            {p}_spikes_{name}[fired++] = (uint{item.unit_bits}_t)j;", "        }"]
        lines += [f"        {p}_v_{name}[j] = (int{item.v_bits}_t)v;", "    }"]
        if item.spiking:
            lines.append(f"    {p}_n_spikes_{name} = fired;")
        lines += [f"    {self.upper}_TALLY({p}_updates, {item.size}u);", "}", ""]
        return "\n".join(lines)

    def current(self, item: PopulationLayout) -> list[str]:
        """Return the lines that let arrivals act on the current, and decay it for the next step."""
        lines = []
        if item.slots:
            lines.append(f"        i = (int32_t)((uint32_t)i + {self.shifted(item)});")
            lines += self.clamped("i", CURRENT_LIMIT, item.clamp_i, "        ")
        kept = [*self.decayed("i", item.parameters["alpha"]), *self.term(item.parameters["drive_syn"])] or ["0u"]
        lines.append(f"        next = (int32_t)({' + '.join(kept)});")
        lines += self.clamped("next", CURRENT_LIMIT, item.clamp_i, "        ")
        lines.append(f"        {self.prefix}_i_{item.name}[j] = (int{item.i_bits}_t)next;")
        return lines

    def after_spike(self, item: PopulationLayout) -> list[str]:
        q = item.parameters
        kind = q["reset_zero"]
        zero = f"            v = {self.value(q['v_reset'], 'j')};" if "v_reset" in q else ""
        subtract = f"            v -= {self.value(q['reset_amount'], 'j')};" if "reset_amount" in q else ""
        if kind == 1:
            return [zero]
        if kind == 0:
            return [subtract]
        test = f"            if ({self.value(kind, 'j')})"
        return [test, f"    {zero}", "            else", f"    {subtract}"]

    def read(self) -> str:
        """Write the functions that collect scores."""
        layout, p = self.layout, self.prefix
        assert layout.readout is not None
        item = layout.populations[layout.readout]
        v, scores = f"{p}_v_{item.name}[j]", f"{p}_scores"
        every = f"    for (j = 0; j < {item.size}u; j++)"
        lines = [f"static void {p}_read(void)", "{", "    uint16_t j;"]
        if layout.skip_steps:
            lines += [f"    if ({p}_steps < {layout.skip_steps}u)", "        return;"]
        if layout.softmax_bits is not None:
            lines += self.softmax(v, item.size, layout.softmax_bits)
        elif layout.variable == "v":
            body = {
                "max": [
                    f"        if ({p}_steps == {layout.skip_steps}u || {v} > {scores}[j])",
                    f"            {scores}[j] = {v};",
                ],
                "last": [f"        {scores}[j] = {v};"],
                "mean": [f"        {scores}[j] += {v};"],
            }[layout.reduce]
            lines += [every, *body]
        else:
            if layout.reduce == "last":
                lines += [every, f"        {scores}[j] = 0;"]
            how = "= 1" if layout.reduce in ("max", "last") else "+= 1"
            lines.append(f"    for (j = 0; j < {p}_n_spikes_{item.name}; j++)")
            lines.append(f"        {scores}[{p}_spikes_{item.name}[j]] {how};")
        lines += ["}", "", f"uint16_t {p}_best(void)", "{", "    uint16_t j, best = 0;"]
        lines += [
            f"    for (j = 1; j < {item.size}u; j++)",
            f"        if ({scores}[j] > {scores}[best])",
            "            best = j;",
            "    return best;",
            "}",
            "",
        ]
        return "\n".join(lines)

    def softmax(self, v: str, size: int, bits: int) -> list[str]:
        """Return the lines that add the softmax of one step."""
        p = self.prefix
        near = f"(apart >> {bits - 10})" if bits >= 10 else f"(apart << {10 - bits})"
        power = f"{self.upper}_READ16({p}_powers[(apart & 1023u) >> 4])"
        return [
            f"    int32_t highest = {p}_v_{self.readout_name()}[0];",
            "    uint32_t total = 0, apart;",
            f"    for (j = 1; j < {size}u; j++)",
            f"        if ({v} > highest)",
            f"            highest = {v};",
            f"    for (j = 0; j < {size}u; j++) {{",
            f"        apart = (uint32_t)highest - (uint32_t){v};",
            f"        {p}_terms[j] = 0;",
            f"        if (apart < {SOFTMAX_END << bits}u) {{",
            f"            apart = ({near} * 1477u) >> 10;",
            f"            {p}_terms[j] = (uint16_t)({power} >> (apart >> 10));",
            "        }",
            f"        total += {p}_terms[j];",
            "    }",
            f"    for (j = 0; j < {size}u; j++)",
            f"        {p}_scores[j] += (int64_t)(((uint32_t){p}_terms[j] << 15) / total);",
        ]

    def readout_name(self) -> str:
        assert self.layout.readout is not None
        return self.layout.populations[self.layout.readout].name

    def reset(self) -> str:
        lines = [f"void {self.prefix}_reset(void)", "{", "    uint32_t k;"]
        for name, words, _ in self.layout.arrays():
            place = f"{self.prefix}_{name}"
            if words == 1 and name.split("_")[0] in ("n", "slot", "steps"):
                lines.append(f"    {place} = 0;")
            else:
                lines += [f"    for (k = 0; k < {words}u; k++)", f"        {place}[k] = 0;"]
        return "\n".join([*lines, "}", ""])

    def step(self) -> str:
        """Write the function that advances the network."""
        p, layout = self.prefix, self.layout
        total = sum(size for _, size in layout.inputs)
        lines = [
            f"int {p}_step(const uint16_t *units, uint16_t n)",
            "{",
            "    uint16_t k, unit, times;",
            "    for (k = 0; k < n; k++)",
            f"        if (units[k] >= {total}u)",
            "            return -1;",
            "    k = 0;",
            "    while (k < n) {",
            "        unit = units[k];",
            "        for (times = 0; k < n && units[k] == unit; k++)",
            "            times++;",
            *self.dispatch(),
            "    }",
        ]
        for item in layout.populations:
            lines.append(f"    {p}_update_{item.name}();")
            out = [entry for entry in layout.projections if not entry.from_input and entry.source == item.name]
            if out:
                lines.append(f"    for (k = 0; k < {p}_n_spikes_{item.name}; k++) {{")
                lines += [f"        {p}_send_{entry.number}({p}_spikes_{item.name}[k]);" for entry in out]
                lines.append("    }")
        if layout.readout is not None:
            lines.append(f"    {p}_read();")
        for item in layout.populations:
            if item.slots > 1:
                slot = f"{p}_slot_{item.name}"
                lines.append(f"    {slot} = (uint16_t)({slot} + 1u == {item.slots}u ? 0u : {slot} + 1u);")
        if ("steps", 1, 32) in layout.arrays():
            lines += [f"    if ({p}_steps < 4294967295u)", f"        {p}_steps++;"]
        return "\n".join([*lines, "    return 0;", "}", ""])

    def dispatch(self) -> list[str]:
        """Return the lines that send an event of one input unit along its projections."""
        lines: list[str] = []
        first = 0
        for name, size in self.layout.inputs:
            out = [entry for entry in self.layout.projections if entry.from_input and entry.source == name]
            calls = [f"{self.prefix}_send_{e.number}((uint16_t)(unit - {first}u), times);" for e in out]
            if len(self.layout.inputs) == 1:
                lines += [f"        {call}" for call in calls]
            elif calls:
                test = f"unit < {first + size}u" if first == 0 else f"unit >= {first}u && unit < {first + size}u"
                lines += [f"        if ({test}) {{", *(f"            {call}" for call in calls), "        }"]
            first += size
        return lines


def _comment(text: str) -> str:
    """Return text that cannot end a comment."""
    return "".join(letter if letter.isprintable() and ord(letter) < 128 else "?" for letter in text).replace(
        "*/", "* /"
    )
