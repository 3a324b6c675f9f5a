#!/usr/bin/env python3
"""An independent cost model of full fine-tuning of SD 1.4, SD 2.1 and SDXL: parameters, FLOPs, kept activations, peaks,
bytes per link and seconds. docs/cost_model.md says what it models.

    scripts/cost_model.py --model sd14 --batch 16                    its own figures
    scripts/cost_model.py --against build/pagebooth                  ratios of Pagebooth's plans to its best
"""
import argparse
import json
import subprocess
import sys

from cost_network import MODELS, Network, block_inputs, kept_tensors, step_ops
from cost_paging import Formats, Usage, accesses, count_moves, operand_bytes, resident_peaks, smallest_device, totals

GIB = 1 << 30
# Up to which running contractions again is considered: 320, 640 and 1280 channels in 16 bits, and shared/design.md's limit.
FLOPS_PER_BYTE = (0, 330, 650, 1300, 1800)

# Published figures, dense, fp32 accumulation; shares and links as docs/machines.md assumes them.
CARDS = {
    "rtx3060": dict(f32=12.7e12, f16=25.6e12, memory=360e9, device=12, host=32),
    "rtx3090": dict(f32=35.6e12, f16=71e12, memory=936e9, device=24, host=64),
    "rtx4090": dict(f32=82.6e12, f16=165.2e12, memory=1008e9, device=24, host=64),
}
LINK, BOTH, DRAM, HOST_ADAMW = 25e9, 45e9, 45e9, 0.9 * 45e9
NVME_READ, NVME_WRITE, NVME_BOTH = 5e9, 4e9, 5e9
LAUNCH = 4e-6


def op_seconds(op, card, formats):
    half = formats.element == 2
    attention = op.kind.startswith("attention")
    share = (0.45 if half else 0.6) if attention else (0.6 if half else 0.75)
    return LAUNCH + max(op.flops / (share * card["f16" if half else "f32"]),
                        (operand_bytes(op, formats) + (op.writes[0].bytes if op.over else 0)) / (0.8 * card["memory"]))


class Variant:
    """One choice of what runs again in the backward pass."""

    def __init__(self, name, network, kept, again, formats, card, whole=False):
        self.name, self.network, self.formats = name, network, formats
        self.kept = sum(t.bytes for t in kept.values())
        self.usage = Usage(step_ops(network, kept, again, whole))
        self.compute = sum(op_seconds(op, card, formats) for op in self.usage.ops)
        self.update = sum(p.elements for p in network.params) * 28 / (0.8 * card["memory"])
        # A gradient's norm reads it once more, at once; every parameter has a launch for that and one for its update.
        self.compute += totals(network, formats)["gradient"] / (0.8 * card["memory"]) + LAUNCH * len(network.params)
        self.update += LAUNCH * len(network.params)
        first = self.usage.border
        self.backward = sum(op_seconds(op, card, formats) for op in self.usage.ops[first:])
        self.plain, self.recast = resident_peaks(network, self.usage, formats)
        self.border = max(self.usage.alive[self.usage.border], self.usage.alive[self.usage.border + 1])


class Plan:
    """A way to run the step: bytes per link, and the seconds that no order of its work goes below."""

    def __init__(self, name, up=0.0, down=0.0, read=0.0, write=0.0, compute=0.0, host_elements=0, passes=0.0):
        self.name, self.up, self.down, self.read, self.write, self.compute = name, up, down, read, write, compute
        self.choice = name.split(", ")[-1]  # of what runs again
        self.updates = host_elements * 28
        self.moved = up + down
        copies = up + down
        self.bounds = {"compute": compute, "up": up / LINK, "down": down / LINK, "both": copies / BOTH,
                       "nvme": max(read / NVME_READ, write / NVME_WRITE, (read + write) / NVME_BOTH),
                       "passes": passes, "dram": (copies + read + write + self.updates) / DRAM}
        self.seconds = max(self.bounds.values())


class Model:
    def __init__(self, model, batch, resolution, dtype, states="fp32", master="fp32", card="rtx3090"):
        self.formats = Formats(dtype, states, master)
        self.network = Network(model, batch, resolution, self.formats.element)
        self.card = CARDS[card]
        n = self.network
        backward = n.backward()
        self.parameters = sum(p.elements for p in n.params)
        self.forward, self.backward = sum(op.flops for op in n.ops), sum(op.flops for op in backward)
        self.totals = totals(n, self.formats)
        self.variants = []
        for dear in FLOPS_PER_BYTE:
            kept, again = kept_tensors(n, backward, dear, not self.formats.copied)
            v = Variant(f"again to {dear}" if dear else "keep", n, kept, again, self.formats, self.card)
            if not self.variants or v.kept < self.variants[-1].kept:
                self.variants.append(v)
        self.variants.append(Variant("blocks again", n, block_inputs(n), None, self.formats, self.card, True))
        self.smallest = min(smallest_device(v.usage, self.formats) for v in self.variants)
        self.resident = self.variants[0].plain

    def resident_plans(self, device):
        """Nothing moves. What keeps copies, or makes them again of the masters for 6 bytes of traffic an element."""
        again = 2 * self.totals["matrix"] * 6 / (0.8 * self.card["memory"]) if self.formats.copied else 0
        for v in self.variants:
            if v.plain <= device:
                yield Plan("resident, " + v.name, compute=v.compute + v.update)
            elif v.recast <= device:
                yield Plan("resident, copies again, " + v.name, compute=v.compute + v.update + again)

    def stream_plans(self, device):
        for v in self.variants:
            slots, items, fixed = accesses(self.network, v.usage, self.formats)
            moves = count_moves(slots, items, device, fixed)
            if moves:
                yield Plan("stream, " + v.name, moves[0], moves[1], compute=v.compute + v.update,
                           passes=self.passes(v, device, self.totals["work"]))
            yield from self.recast_plan(v, device)

    def passes(self, v, device, work, on_host=0.0):
        """No update before the norm of all gradients, and none after the forward pass. So in the forward pass all state
        and gradients come that were not there when it began, and all that it makes goes but what is there when it
        ends: new state, copies, activations; then the backward pass. on_host: the share of the parameters that the
        host updates, which touches its memory, too."""
        t, own = self.totals, 1 - on_host
        forward = v.compute - v.backward + v.update * own
        made = own * work + v.border
        old = 0 if self.formats.copied else work  # weights that live on come, too
        come = max(0.0, own * (t["state"] + t["gradient"] + old) + on_host * t["work"] - device)
        go = max(0.0, own * t["state"] + made - device)
        back = max(0.0, made + on_host * t["work"] - device) + max(0.0, own * t["gradient"] - device)
        updates = on_host * self.parameters * 28
        return (max(forward, come / LINK, go / LINK, (come + go) / BOTH, (come + go + updates) / DRAM) +
                max(v.backward, back / BOTH))

    def recast_plan(self, v, device):
        """Copies of masters that stay on the device are made again of them whenever an op reads them. The share of the
        state that stays is the one with the fewest bytes; all else goes by Belady's rule in the room that is left."""
        t, f = self.totals, self.formats
        if not f.copied:
            return
        found = {}

        def moves(share):
            if share not in found:
                slots, items, fixed = accesses(self.network, v.usage, f, resident=share)
                found[share] = count_moves(slots, items, device, fixed, 2)
            return sum(found[share][:2]) if found[share] else float("inf")

        # All that is alive at some instant and not in the device has to be below: no larger share stays than this one.
        low, high = 0.0, min(1.0, max(0.0, (device - (v.recast - t["state"])) / t["state"]))
        for _ in range(SHARE_TRIES):  # the bytes are a convex function of the share
            a, b = low + 0.382 * (high - low), low + 0.618 * (high - low)
            if moves(a) < moves(b):
                high = b
            else:
                low = a
        moves(high), moves(low)
        share = min(found, key=moves)
        if not share or not found[share]:
            return
        again = share * t["matrix"] * 6 / (0.8 * self.card["memory"])
        yield Plan("stream, copies again, " + v.name, found[share][0], found[share][1],
                   compute=v.compute + v.update + again,
                   passes=self.passes(v, device, t["work"] * (1 - share)) + again)

    def host_plans(self, device):
        """The host updates what the device does not keep. Kept: the parameters used first, as many as fit."""
        matrices = [p for p in self.network.params if p.matrix]
        total = self.totals["matrix"]
        for v in self.variants:
            for share in (1.0, 0.75, 0.5, 0.25, 0.1):
                below, count = set(), 0
                for p in reversed(matrices):
                    if count >= share * total:
                        break
                    below.add(p.index)
                    count += p.elements
                slots, items, fixed = accesses(self.network, v.usage, self.formats, below)
                moves = count_moves(slots, items, device, fixed)
                if not moves:
                    continue
                yield Plan(f"host updates {share:.0%}, {v.name}", moves[0], moves[1],
                           compute=v.compute + v.update * (1 - count / total), host_elements=count,
                           passes=max(self.host_prefix(v, below),
                                      self.passes(v, device, self.totals["work"], count / total)))
                if share < 1 and moves[0] + moves[1] > 8 * count:
                    break  # what is left streams as well

    def host_prefix(self, v, below):
        """Updates on the host can begin when the step's norm is known, and an op waits for those of all weights that
        were used up to it: the longest of these chains with what the device then has left to do."""
        left, done, longest, updated = v.compute, 0.0, 0.0, set()
        for op in v.usage.ops:
            for p in op.weights:
                if p.index in below and p.index not in updated:
                    updated.add(p.index)
                    done += p.elements * 28 / HOST_ADAMW
                    longest = max(longest, done + left)
            left -= op_seconds(op, self.card, self.formats)
        return longest

    def nvme_bytes(self, device, host):
        """The fewest bytes each way when device and host are one memory."""
        best = None
        for v in self.variants:
            slots, items, fixed = accesses(self.network, v.usage, self.formats)
            moves = count_moves(slots, items, device + host, fixed)
            if moves and (best is None or sum(moves[:2]) < sum(best)):
                best = moves[:2]
        return best


SHARE_TRIES = 6


# --- Against Pagebooth ---

def ask(program, arguments, timeout=120):
    done = subprocess.run([program, "plan", "--json"] + arguments, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        return dict(refused=(done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
    return json.loads(done.stdout)


def grid(options):
    for model in options.models:
        for batch in options.batches:
            for dtype in options.dtypes:
                yield model, batch, dtype


def ratio(ours, best):
    return ours / best if best else (1.0 if not ours else float("inf"))


def mark(value, low=0.98, high=1.02):
    return f"{value:7.3f}{' ' if low <= value <= high else '*'}" if value != float("inf") else "    inf*"


def compare(options):
    if not options.host:
        print_head()
    for model, batch, dtype in grid(options):
        compare_step(options, model, batch, dtype)


def print_head():
    print("ratios: Pagebooth's / the model's best; * is more than 2% away. h2d, d2h: against the fewest bytes of a plan\n"
          "of its own kind that runs as much again; fewest: against those of any plan; seconds: against the lower bound\n"
          "of the model's fastest plan. Gradients again: GB that are not kept")
    print(f"{'plan':42s} {'params':>8s} {'flops':>8s} {'kept':>8s} {'peak':>8s} {'h2d':>8s} {'d2h':>8s} {'fewest':>8s}"
          f" {'seconds':>8s}  {'s':>7s} {'plan s':>6s}  kinds")

def compare_step(options, model, batch, dtype):
    resolution = MODELS[model]["resolution"]
    m = Model(model, batch, resolution, dtype, card=options.machine)
    for budget in options.budgets:
        device = int(budget * GIB)
        arguments = ["--preset", model, "--machine", options.machine, "--set", f"mixed_precision={DTYPES[dtype]}",
                     "--set", f"train_batch_size={batch}", "--set", f"resolution={resolution}",
                     "--set", f"memory.device={device}"]
        name = f"{model} {resolution} batch {batch:2d} {dtype} {budget:g} GiB"
        if options.host:
            arguments += ["--set", f"memory.host={int(options.host * GIB)}"]
        ours = ask(options.against, arguments)
        if "refused" in ours:
            print(f"{name:42s} refused; smallest operands {m.smallest / GIB:.3f} GiB: {ours['refused'][:150]}")
            continue
        if options.host:
            report_nvme(name, m, ours, device, int(options.host * GIB))
        else:
            report(name, m, ours, device)
        sys.stdout.flush()


def report(name, m, ours, device):
    plans = list(m.resident_plans(device))
    moved = ours["moved"]
    total = moved["h2d"] + moved["d2h"]
    if not plans or total:
        plans += list(m.stream_plans(device)) + list(m.host_plans(device))
    fastest = min(plans, key=lambda p: p.seconds)
    fewest = min(plans, key=lambda p: p.moved)
    kind = "resident" if not total else None
    if kind is None:
        stream = min((p for p in plans if p.name.startswith("stream")), key=lambda p: p.moved, default=None)
        host = min((p for p in plans if p.name.startswith("host")), key=lambda p: p.moved, default=None)
        kind = "stream" if not host or (stream and total > 0.7 * stream.moved) else "host"
    nearest = min(m.variants, key=lambda v: abs(ours["kept_activations"] / v.kept - 1))
    kept = ours["kept_activations"] / nearest.kept
    alike = [p for p in plans if p.name.startswith(kind) and p.choice == nearest.name]
    best = min(alike, key=lambda p: (p.moved, p.seconds)) if alike else fewest
    peak = ours["peak"]["device"] / (m.resident if kind == "resident" else device)
    print(f"{name:42s} {mark(ratio(ours['parameters'], m.parameters))} "
          f"{mark(ratio(ours['flops'], m.forward + m.backward))} {mark(kept)} {mark(peak)} "
          f"{mark(ratio(moved['h2d'], best.up))} {mark(ratio(moved['d2h'], best.down))} "
          f"{mark(ratio(total, fewest.moved), 0)} {mark(ratio(ours['seconds'], fastest.seconds), 0)} "
          f"{ours['seconds']:8.3f} {ours['plan_seconds']:6.2f}{'*' if ours['plan_seconds'] > 2 else ' '} "
          f"{kind}, {nearest.name}, gradients again {ours['gradients_again'] / 1e9:.2f}; "
          f"of its kind {best.moved / 1e9:.2f} GB, {best.seconds:.3f}; fastest: {fastest.name} {fastest.seconds:.3f} ({fastest.moved / 1e9:.2f} GB); "
          f"fewest: {fewest.name} {fewest.moved / 1e9:.2f} GB, {fewest.seconds:.3f}")


def report_nvme(name, m, ours, device, host):
    """Against the fewest bytes of the drive were the two memories one, with nothing in both: a bound."""
    read, write = m.nvme_bytes(device, host) or (0.0, 0.0)
    moved = ours["moved"]
    drive = max(moved["nvme_read"] / NVME_READ, moved["nvme_write"] / NVME_WRITE,
                (moved["nvme_read"] + moved["nvme_write"]) / NVME_BOTH)
    print(f"{name:42s} read {moved['nvme_read'] / 1e9:7.2f} GB {mark(ratio(moved['nvme_read'], read))} "
          f"written {moved['nvme_write'] / 1e9:7.2f} GB {mark(ratio(moved['nvme_write'], write))} "
          f"h2d {moved['h2d'] / 1e9:6.2f} d2h {moved['d2h'] / 1e9:6.2f}  {ours['seconds']:7.3f} s; the drive alone "
          f"{drive:.3f}; planned in {ours['plan_seconds']:.2f} s")


DTYPES = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}


def show(options):
    resolution = options.resolution or MODELS[options.model]["resolution"]
    m = Model(options.model, options.batch, resolution, options.dtype, options.states, options.master, options.machine)
    print(f"{options.model}, {resolution} x {resolution}, batch {options.batch}, {options.dtype}, "
          f"states {options.states}, master {options.master}")
    print(f"parameters {m.parameters}, FLOPs forward {m.forward}, backward {m.backward}")
    print(f"weights {m.totals['work'] / GIB:.3f} GiB, gradients {m.totals['gradient'] / GIB:.3f}, "
          f"state {m.totals['state'] / GIB:.3f}; operands of the largest op {m.smallest / 2**20:.1f} MiB")
    for v in m.variants:
        print(f"  {v.name:14s} keeps {v.kept / 2**20:9.1f} MiB; resident {v.plain / GIB:.3f} GiB, "
              f"copies made again {v.recast / GIB:.3f} GiB; {v.compute + v.update:.4f} s on {options.machine}")
    for budget in options.budgets:
        device = int(budget * GIB)
        plans = list(m.resident_plans(device)) + list(m.stream_plans(device)) + list(m.host_plans(device))
        print(f"device {budget:g} GiB" + ("" if plans else ": nothing fits"))
        for p in sorted(plans, key=lambda p: p.seconds)[:8]:
            bound = max(p.bounds, key=p.bounds.get)
            print(f"  {p.name:44s} up {p.up / 1e9:7.3f} GB, down {p.down / 1e9:7.3f} GB, at least {p.seconds:.4f} s "
                  f"({bound})")


def numbers(text):
    return [float(x) for x in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="sd14")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--states", choices=("fp32", "16bit", "8bit"), default="fp32")
    parser.add_argument("--master", choices=("fp32", "split16", "split8", "none"), default="fp32")
    parser.add_argument("--machine", choices=CARDS, default="rtx3090")
    parser.add_argument("--budgets", type=numbers, default=[24, 16, 12, 8, 6, 4, 2, 1, 0.5], metavar="GiB,...")
    parser.add_argument("--against", metavar="PAGEBOOTH", help="compare with this program's plans")
    parser.add_argument("--host", type=float, metavar="GiB", help="host memory, with a drive below: compares its bytes")
    parser.add_argument("--models", type=lambda s: s.split(","), default=list(MODELS))
    parser.add_argument("--batches", type=lambda s: [int(x) for x in s.split(",")], default=[1, 2, 4, 16])
    parser.add_argument("--dtypes", type=lambda s: s.split(","), default=["fp16", "bf16", "fp32"])
    options = parser.parse_args()
    compare(options) if options.against else show(options)


if __name__ == "__main__":
    main()
