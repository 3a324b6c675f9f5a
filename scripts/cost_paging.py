"""What a step takes in memory and on the links: peaks of resident steps, and the fewest bytes that paged ones move."""
import heapq

SMALLEST_PIECE = 1 << 20  # elements of a parameter that are updated, and paged, at once


class Formats:
    """Bytes of a matrix's element: weight that the ops read, gradient, and the rest of the state. `copied`: the weight
    is a copy that an fp32 master can make again; else (fp32, split masters, none) it is part of what lives on. Biases
    and norms are fp32 with fp32 moments and gradients always."""

    def __init__(self, dtype, states="fp32", master="fp32"):
        self.element = 4 if dtype == "fp32" else 2
        moments = {"fp32": 8.0, "16bit": 4.0, "8bit": 2 + 8 / 256}[states]
        own = {"fp32": 4, "split16": 2, "split8": 1, "none": 0}[master]
        self.gradient = self.work = self.element
        self.copied = dtype != "fp32" and master == "fp32"
        self.state = moments + (0 if dtype == "fp32" else own)
        self.small = 12  # of a bias's or norm's element, its weight included


class Usage:
    """When tensors live, by op, and what is alive then."""

    def __init__(self, ops):
        self.ops = ops
        last = {}
        for i, op in enumerate(ops):
            for t in op.reads + op.writes:
                last[id(t)] = i
        # A tensor that takes over another's bytes is the same storage.
        owner, sizes = {}, {}

        def storage(t):
            if id(t) not in owner:
                owner[id(t)] = id(t)
                sizes[id(t)] = t.bytes
            return owner[id(t)]

        first, end = {}, {}
        for i, op in enumerate(ops):
            for t in op.reads:
                s = storage(t)
                first.setdefault(s, 0)  # an input of the step
                end[s] = i
            for k, t in enumerate(op.writes):
                if k == 0 and op.over is not None and last[id(op.over)] == i:
                    s = owner[id(t)] = storage(op.over)
                    sizes[s] = max(sizes[s], t.bytes)
                else:
                    s = storage(t)
                    first.setdefault(s, i)
                end[s] = i
        self.first, self.end, self.sizes, self.owner = first, end, sizes, owner
        self.alive = [0] * (len(ops) + 1)
        for s, size in sizes.items():
            self.alive[first[s]] += size
            self.alive[end[s] + 1] -= size
        for i in range(1, len(self.alive)):
            self.alive[i] += self.alive[i - 1]
        self.border = next(i for i, op in enumerate(ops) if op.phase == "backward")


def operand_bytes(op, formats):
    own = 0 if op.over is None else op.writes[0].bytes
    w = sum(p.elements * formats.work for p in op.weights if p.matrix)
    g = sum(p.elements * formats.gradient for p in op.grads if p.matrix)
    return sum(t.bytes for t in op.reads + op.writes) - own + w + g


def totals(network, formats):
    matrix = sum(p.elements for p in network.params if p.matrix)
    small = sum(p.elements for p in network.params) - matrix
    return dict(matrix=matrix, small=small, state=matrix * formats.state + small * formats.small,
                work=matrix * formats.work, gradient=matrix * formats.gradient + small * 4)


def resident_peaks(network, usage, formats):
    """(plain, recast): bytes of a step in which nothing moves and the update ends it. Gradients live from when they are
    made; working copies to their last use, or, recast, only while an op reads them, made anew of their masters."""
    t = totals(network, formats)
    count = len(usage.ops)
    last = {}
    for i, op in enumerate(usage.ops):
        for p in op.weights:
            last[p.index] = i
    live = list(usage.alive)
    gradient = 0
    plain = recast = 0
    work = t["work"]
    for i in range(count):
        op = usage.ops[i]
        now = sum(p.elements * formats.work for p in op.weights if p.matrix)
        gradient += sum(p.elements * (formats.gradient if p.matrix else 4) for p in op.grads)
        held = live[i] + gradient + t["state"]
        plain = max(plain, held + work)
        recast = max(recast, held + (now if formats.copied else t["work"]))
        for p in op.weights:
            if last[p.index] == i and p.matrix and formats.copied:
                work -= p.elements * formats.work
    return plain, recast


def smallest_device(usage, formats):
    """No plan that runs an op as a whole does with less; paging with pieces as small as wanted does with this."""
    return max(operand_bytes(op, formats) for op in usage.ops)


# --- The fewest bytes that move ---

class Item:
    """Bytes that lie somewhere: a piece of a parameter's state, working copy or gradient, or an activation."""
    __slots__ = ("size", "here", "dirty", "uses", "at", "kind", "stamp", "persistent")

    def __init__(self, size, kind, persistent=False):
        self.size, self.kind, self.persistent = size, kind, persistent
        self.here = 0      # bytes in the tier
        self.dirty = 0     # of them, those that the tier below does not have
        self.uses, self.at = [], 0
        self.stamp = 0


READ, MODIFY, WRITE, SEND = range(4)


def accesses(network, usage, formats, on_host=None, resident=0.0):
    """The step as lists of (item, kind), with the update of a parameter just before its first use. on_host: the
    parameters (by index) whose state lives below, where it is updated: they send their gradients and get weights.
    resident: the share of all others' state that stays in the tier in any case; that share of their working copies is
    there only while an op reads it, made again of its masters."""
    on_host = on_host or set()
    state, work, grad, again = {}, {}, {}, {}
    items, fixed = [], 0

    def item(*args):
        items.append(Item(*args))
        return items[-1]

    for p in network.params:
        if not p.matrix:
            fixed += p.elements * formats.small
            continue
        count = -(-p.elements // SMALLEST_PIECE)
        share = p.elements / count
        below = p.index in on_host
        own = 0.0 if below else resident
        fixed += p.elements * own * formats.state
        state[p.index] = [] if below else [item(share * (1 - own) * formats.state, "state", True)
                                           for _ in range(count)]
        grad[p.index] = [item(share * formats.gradient, "gradient", True) for _ in range(count)]
        work[p.index] = [item(share * (1 - own) * formats.work, "weight", not below and not formats.copied)
                         for _ in range(count)]
        again[p.index] = [item(p.elements * own * formats.work, "weight")] if own else []
    slots, updated = [], set()
    activation = {}
    for i, op in enumerate(usage.ops):
        for p in op.weights:
            if not p.matrix or p.index in updated:
                continue
            updated.add(p.index)
            if p.index in on_host:
                continue
            for s, g, w in zip(state[p.index], grad[p.index], work[p.index]):
                slots.append(([(s, MODIFY), (g, READ), (w, WRITE if formats.copied else MODIFY)], None))
        slot = []
        for p in op.weights:
            if p.matrix:
                slot += [(w, READ) for w in work[p.index]] + [(w, WRITE) for w in again[p.index]]
        for p in op.grads:
            if p.matrix:
                slot += [(g, WRITE) for g in grad[p.index]]
        seen = set()
        for t in op.reads + op.writes:
            s = usage.owner[id(t)]
            if s in seen:
                continue
            seen.add(s)
            if s not in activation:
                activation[s] = item(usage.sizes[s], "activation")
            a = activation[s]
            fresh = usage.first[s] == i and any(usage.owner[id(w)] == s for w in op.writes)
            wrote = any(usage.owner[id(w)] == s for w in op.writes)
            slot.append((a, WRITE if fresh else MODIFY if wrote else READ))
        slots.append((slot, op))
        for p in op.grads:
            if p.matrix and p.index in on_host:
                slots.append(([(g, SEND) for g in grad[p.index]], None))
    return slots, items, fixed


def count_moves(slots, items, capacity, fixed=0, steps=3):
    """Belady's rule with fractions: what is used furthest in the future leaves. Where each byte costs the same to move,
    nothing moves fewer in this order of ops. Returns bytes (up, down) of the last of `steps` steps in a row and the most
    that was used, or None where an op's operands do not fit."""
    capacity -= fixed
    length = len(slots)
    for it in items:
        it.uses, it.at, it.here, it.dirty, it.stamp = [], 0, 0, 0, 0
    for n, (slot, _) in enumerate(slots):
        for it, kind in slot:
            if not it.uses or it.uses[-1][0] != n:
                it.uses.append((n, kind))
    used, up, down, most = 0.0, 0.0, 0.0, 0.0
    heap = []  # (-next use, id, item)

    def next_use(it, step):
        """(when, whether what is here is wanted then); None: dead."""
        at = it.at
        if at < len(it.uses):
            n, kind = it.uses[at]
            return step * length + n, kind != WRITE
        if not it.persistent:
            return None
        n, kind = it.uses[0]
        return (step + 1) * length + n, kind != WRITE

    def drop(it):
        nonlocal used
        used -= it.here
        it.here = it.dirty = 0

    for step in range(steps):
        up = down = 0.0
        for it in items:
            it.at = 0
        for n, (slot, _) in enumerate(slots):
            now = step * length + n
            pinned = set()
            for it, kind in slot:
                pinned.add(id(it))
                missing = it.size - it.here
                if kind == SEND:
                    down += it.dirty
                    it.dirty = 0
                    continue
                if kind != WRITE and missing > 0 and (step or it.kind == "activation"):
                    up += missing
                if kind in (WRITE, MODIFY):
                    it.dirty = it.size
                used += missing
                it.here = it.size
            # What has to leave.
            while used > capacity + 0.5:
                while heap:
                    _, _, it, stamp = heap[0]
                    if stamp == it.stamp and it.here > 0 and id(it) not in pinned:
                        break
                    heapq.heappop(heap)  # what is pinned comes back with its next use
                if not heap:
                    return None
                part = min(it.here, used - capacity)
                moved = max(0.0, part - (it.here - it.dirty))
                down += moved
                it.dirty -= moved
                it.here -= part
                used -= part
                if it.here <= 0.5:
                    used -= it.here
                    it.here = 0
                    heapq.heappop(heap)
            most = max(most, used)
            for it, kind in slot:
                if kind == SEND:
                    it.at += 1
                    drop(it)
                    continue
                it.at += 1
                it.stamp += 1
                following = next_use(it, step)
                if following is None or not following[1]:
                    drop(it)
                    continue
                heapq.heappush(heap, (-following[0], id(it), it, it.stamp))
    return up, down, most + fixed
