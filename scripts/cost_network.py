"""The training step of a UNet as a list of ops over tensors, walked from diffusers' config.json facts.

Written from the published architecture (UNet2DConditionModel) and from PyTorch's rules, not from Pagebooth's sources:
it is what they are held against. Sizes are bytes, FLOPs count a multiply-add as two, as torch.utils.flop_counter does.
"""

# What the config.json files of the three pipelines say, as far as shapes depend on it.
MODELS = {
    "sd14": dict(channels=(320, 640, 1280, 1280), down=(1, 1, 1, 0), heads=(8, 8, 8, 8), depth=(1, 1, 1, 1),
                 context=768, linear_projection=False, added=0, resolution=512),
    "sd21": dict(channels=(320, 640, 1280, 1280), down=(1, 1, 1, 0), heads=(5, 10, 20, 20), depth=(1, 1, 1, 1),
                 context=1024, linear_projection=True, added=0, resolution=768),
    "sdxl": dict(channels=(320, 640, 1280), down=(0, 1, 1), heads=(5, 10, 20), depth=(1, 2, 10),
                 context=2048, linear_projection=True, added=2816, resolution=1024),
}
LAYERS, GROUPS, TOKENS, LATENT_CHANNELS, VAE_FACTOR = 2, 32, 77, 4, 8

# Cheap ops are bound by memory: their results are made again rather than kept where that spares bytes.
CHEAP = {"norm", "unary", "geglu", "concat"}


class Tensor:
    """An activation, or a gradient of one. `made`: the forward op that makes it, or None for inputs of the step."""
    __slots__ = ("bytes", "made", "name", "small", "shape")

    def __init__(self, size, made, name, small=False):
        self.bytes, self.made, self.name, self.small = size, made, name, small


class Param:
    """`matrix`: has a working copy in the compute dtype; biases and norms are fp32 always."""
    __slots__ = ("name", "elements", "matrix", "index")

    def __init__(self, name, elements, matrix, index):
        self.name, self.elements, self.matrix, self.index = name, elements, matrix, index


class Op:
    """reads, writes: tensors. weights: parameters that are read; grads: parameters whose gradient is made.
    over: the tensor among `reads` whose bytes the first write takes over, if nobody reads it later."""
    __slots__ = ("kind", "reads", "writes", "weights", "grads", "flops", "phase", "over", "again", "block", "forward")

    def __init__(self, kind, reads, writes, weights=(), grads=(), flops=0, phase="forward", over=None, again=False,
                 block=None, forward=None):
        self.kind, self.reads, self.writes, self.weights, self.grads = kind, reads, writes, weights, grads
        self.flops, self.phase, self.over, self.again, self.block = flops, phase, over, again, block
        self.forward = forward


class Network:
    """Forward ops; see backward() for the rest of the step."""

    def __init__(self, model, batch, resolution, element):
        self.f, self.n, self.e = MODELS[model], batch, element
        self.params, self.ops, self.block = [], [], None
        self.side = resolution // VAE_FACTOR
        self.build()

    # --- Pieces ---

    def param(self, name, elements, matrix):
        self.params.append(Param(name, elements, matrix, len(self.params)))
        return self.params[-1]

    def tensor(self, rows, channels, name, element=None, small=False):
        t = Tensor(rows * channels * (element or self.e), None, name, small)
        t.shape = (rows, channels)
        return t

    def add(self, kind, reads, writes, weights=(), flops=0, over=None):
        op = Op(kind, [r for r in reads if r], writes, list(weights), flops=flops, over=over, block=self.block)
        for w in writes:
            w.made = op
        self.ops.append(op)
        return writes[0]

    def matmul(self, kind, name, x, rows, out, kernel=1, bias=True, residual=None, rowbias=None):
        """A linear layer or a convolution: `rows` output positions, `kernel` taps."""
        inputs = x.shape[1]
        w = [self.param(name + ".weight", kernel * inputs * out, True)]
        if bias:
            w.append(self.param(name + ".bias", out, False))
        y = self.tensor(rows, out, name)
        op_reads = [x, residual, rowbias]
        self.add(kind, op_reads, [y], w, 2 * rows * kernel * inputs * out, over=residual)
        self.ops[-1].forward = dict(x=x, residual=residual, rowbias=rowbias, bias=bias)
        return y

    def linear(self, name, x, out, **more):
        return self.matmul("linear", name, x, x.shape[0], out, **more)

    def conv(self, name, x, rows, out, **more):
        return self.matmul("conv", name, x, rows, out, kernel=9, **more)

    def norm(self, name, x, stats):
        w = [self.param(name + ".weight", x.shape[1], False), self.param(name + ".bias", x.shape[1], False)]
        y = self.tensor(*x.shape, name)
        s = self.tensor(stats, 2, name + " stats", 4, True)
        self.add("norm", [x], [y, s], w, over=x)
        self.ops[-1].forward = dict(x=x, stats=s)
        return y

    def unary(self, name, x):
        y = self.tensor(*x.shape, name)
        self.add("unary", [x], [y], over=x)
        self.ops[-1].forward = dict(x=x)
        return y

    # --- The architecture ---

    def resnet(self, name, x, out):
        rows = x.shape[0]
        self.block = name
        shortcut = x if x.shape[1] == out else self.linear(name + ".conv_shortcut", x, out)
        h = self.norm(name + ".norm1", x, self.n * GROUPS)  # with SiLU
        shift = self.linear(name + ".time_emb_proj", self.temb, out)
        h = self.conv(name + ".conv1", h, rows, out, rowbias=shift)
        h = self.norm(name + ".norm2", h, self.n * GROUPS)
        return self.conv(name + ".conv2", h, rows, out, residual=shortcut)

    def attention(self, name, x, source, heads, residual):
        rows, channels = x.shape
        keys = source.shape[0] // self.n
        q = self.linear(name + ".to_q", x, channels, bias=False)
        k = self.linear(name + ".to_k", source, channels, bias=False)
        v = self.linear(name + ".to_v", source, channels, bias=False)
        y = self.tensor(rows, channels, name)
        lse = self.tensor(rows, heads, name + " lse", 4, True)
        self.add("attention", [q, k, v], [y, lse], flops=4 * rows * keys * channels)
        self.ops[-1].forward = dict(q=q, k=k, v=v, y=y, lse=lse)
        return self.linear(name + ".to_out", y, channels, residual=residual)

    def transformer(self, name, x, level):
        channels = x.shape[1]
        self.block = name
        h = self.norm(name + ".norm", x, self.n * GROUPS)
        h = self.linear(name + ".proj_in", h, channels)
        for i in range(self.f["depth"][level]):
            b = f"{name}.{i}"
            self.block = b
            heads = self.f["heads"][level]
            n1 = self.norm(b + ".norm1", h, h.shape[0])
            h = self.attention(b + ".attn1", n1, n1, heads, h)
            h = self.attention(b + ".attn2", self.norm(b + ".norm2", h, h.shape[0]), self.context, heads, h)
            wide = self.linear(b + ".ff.proj", self.norm(b + ".norm3", h, h.shape[0]), 8 * channels)
            g = self.tensor(h.shape[0], 4 * channels, b + ".geglu")
            self.add("geglu", [wide], [g])
            self.ops[-1].forward = dict(x=wide)
            h = self.linear(b + ".ff.out", g, channels, residual=h)
        self.block = name + ".out"
        return self.linear(name + ".proj_out", h, channels, residual=x)

    def embed(self, name, x, width):
        h = self.unary(name + ".silu", self.linear(name + ".linear_1", x, width))
        return self.linear(name + ".linear_2", h, width)

    def build(self):
        f, n = self.f, self.n
        channels, levels = f["channels"], len(f["channels"])
        width = 4 * channels[0]
        latents = self.tensor(n * self.side ** 2, LATENT_CHANNELS, "latents")
        self.context = self.tensor(n * TOKENS, f["context"], "context")
        self.inputs = [latents, self.context]
        self.block = "time"
        waves = self.tensor(n, channels[0], "timesteps")
        self.inputs.append(waves)
        t = self.embed("time_embedding", waves, width)
        if f["added"]:
            added = self.tensor(n, f["added"], "added")
            self.inputs.append(added)
            a, b = t, self.embed("add_embedding", added, width)
            t = self.tensor(n, width, "embedding")
            self.add("add", [a, b], [t], over=a)
            self.ops[-1].forward = dict(a=a, b=b)
        self.temb = self.unary("temb", t)
        self.block = "conv_in"
        side = self.side
        x = self.conv("conv_in", latents, n * side ** 2, channels[0])
        skips = [x]
        for level in range(levels):
            for i in range(LAYERS):
                x = self.resnet(f"down.{level}.resnets.{i}", x, channels[level])
                if f["down"][level]:
                    x = self.transformer(f"down.{level}.attentions.{i}", x, level)
                skips.append(x)
            if level + 1 < levels:
                side = (side + 1) // 2
                self.block = f"down.{level}.sample"
                x = self.conv(f"down.{level}.sample", x, n * side ** 2, channels[level])
                skips.append(x)
        x = self.resnet("mid.resnets.0", x, channels[-1])
        x = self.transformer("mid.attention", x, levels - 1)
        x = self.resnet("mid.resnets.1", x, channels[-1])
        for level in reversed(range(levels)):
            for i in range(LAYERS + 1):
                skip = skips.pop()
                self.block = f"up.{level}.resnets.{i}"
                joined = self.tensor(x.shape[0], x.shape[1] + skip.shape[1], self.block + " concat")
                self.add("concat", [x, skip], [joined])
                self.ops[-1].forward = dict(a=x, b=skip)
                x = self.resnet(self.block, joined, channels[level])
                if f["down"][level]:
                    x = self.transformer(f"up.{level}.attentions.{i}", x, level)
            if level:
                rows = skips[-1].shape[0]
                self.block = f"up.{level}.sample"
                x = self.conv(f"up.{level}.sample", x, rows, channels[level])
        self.block = "out"
        x = self.norm("conv_norm_out", x, n * GROUPS)
        self.prediction = self.conv("conv_out", x, x.shape[0], LATENT_CHANNELS)
        self.target = self.tensor(n * self.side ** 2, LATENT_CHANNELS, "target", 4)
        self.inputs.append(self.target)

    # --- The backward pass ---

    def backward(self):
        """Ops that reverse-mode differentiation makes, in order. Sums of gradients are made in place."""
        grad, ops = {}, []
        constant = set(map(id, self.inputs))

        def like(t, name="d "):
            made = Tensor(t.bytes, None, name + t.name)
            made.shape = t.shape
            return made

        def emit(kind, reads, writes, **more):
            ops.append(Op(kind, [r for r in reads if r is not None], writes, phase="backward", **more))

        def flow(kind, reads, x, over=None, **more):
            """A gradient for x, to which what was there is added."""
            if x is None or id(x) in constant:
                return
            before = grad.get(id(x))
            made = like(x)
            emit(kind, reads + [before], [made], over=before if before is not None else over, **more)
            grad[id(x)] = made

        def share(dy, x):
            """x's gradient is dy itself, or what was there with dy added."""
            if x is None or id(x) in constant:
                return
            if id(x) in grad:
                flow("add", [dy], x)
            else:
                grad[id(x)] = dy

        seed = like(self.prediction)
        emit("loss", [self.prediction, self.target], [seed], over=self.prediction)
        grad[id(self.prediction)] = seed
        for op in reversed(self.ops):
            dy, f = grad.pop(id(op.writes[0]), None), op.forward
            if dy is None:
                continue
            if op.kind in ("linear", "conv"):
                emit(op.kind + "_wgrad", [dy, f["x"]], [], grads=op.weights, flops=op.flops)
                if f["rowbias"] is not None:
                    flow("sum", [dy], f["rowbias"])
                flow(op.kind + "_dgrad", [dy], f["x"], weights=op.weights[:1], flops=op.flops)
                share(dy, f["residual"])
            elif op.kind == "norm":
                flow("norm_bwd", [dy, f["x"], f["stats"]], f["x"], over=dy, weights=op.weights, grads=op.weights)
            elif op.kind in ("unary", "geglu"):
                flow(op.kind + "_bwd", [dy, f["x"]], f["x"], over=dy if op.kind == "unary" else f["x"])
            elif op.kind == "attention":
                q, k, v = f["q"], f["k"], f["v"]
                made = [like(t) for t in (q, k, v)]
                emit("attention_bwd", [dy, q, k, v, f["y"], f["lse"]], made, flops=op.flops * 5 // 2)
                for t, d in zip((q, k, v), made):
                    grad[id(t)] = d
            elif op.kind == "add":
                share(dy, f["a"])
                share(dy, f["b"])
            elif op.kind == "concat":
                for t in (f["a"], f["b"]):
                    flow("slice", [dy], t)
        return ops


# --- What is kept from the forward to the backward pass ---

def kept_tensors(network, backward, dear=0.0, weights_stay=False):
    """The fewest bytes from which everything that the backward pass reads can be made again by cheap ops (and by
    contractions of at most `dear` FLOPs per byte of their result). A minimum cut between what only dear ops make and what
    is read. weights_stay: weights are there in any case. Returns (kept set, set of ops run again)."""
    wanted = {}
    for op in backward:
        for t in op.reads:
            if t.made is not None:
                wanted[id(t)] = t
    constant = set(map(id, network.inputs))

    def again(op):
        if op.kind in CHEAP:
            return True
        # Of the text's keys and values a working copy is dead after the forward pass: it would be kept in their place.
        if id(op.reads[0]) in constant and not weights_stay:
            return False
        if op.kind not in ("linear", "conv", "attention"):
            return False
        return op.flops <= dear * op.writes[0].bytes

    # Tensors from which wanted ones may be made.
    reach, stack = dict(wanted), list(wanted.values())
    while stack:
        t = stack.pop()
        if again(t.made):
            for u in t.made.reads:
                if u.made is not None and id(u) not in reach:
                    reach[id(u)] = u
                    stack.append(u)
    # Flow network: tensor t is t_in -> t_out with its bytes; t_out -> u_in where a cheap op makes u of t.
    graph = {}

    def edge(a, b, capacity):
        graph.setdefault(a, {})
        graph.setdefault(b, {})
        graph[a][b] = graph[a].get(b, 0) + capacity
        graph[b].setdefault(a, 0)

    infinite = 1 << 60
    for t in reach.values():
        a, b = (id(t), 0), (id(t), 1)
        edge(a, b, t.bytes)
        if again(t.made):
            for u in t.made.reads:
                if id(u) not in constant and u.made is not None:
                    edge((id(u), 1), a, infinite)
        else:
            edge("s", a, infinite)
        if id(t) in wanted:
            edge(b, "t", infinite)
    max_flow(graph)
    side, stack = {"s"}, ["s"]
    while stack:
        a = stack.pop()
        for b, left in graph.get(a, {}).items():
            if left > 0 and b not in side:
                side.add(b)
                stack.append(b)
    kept = {i: t for i, t in reach.items() if (i, 0) in side and (i, 1) not in side}
    # Ops that run again: back from what is wanted to what is kept.
    ops, stack, seen = [], [t for i, t in wanted.items() if i not in kept], set()
    while stack:
        t = stack.pop()
        if id(t) in seen or id(t) in kept or t.made is None:
            continue
        seen.add(id(t))
        if t.made not in ops:
            ops.append(t.made)
        stack += t.made.reads
    return kept, set(map(id, ops))


def max_flow(graph):
    """Augments along short paths, depth first: most of the network's clusters are a few tensors."""
    if "s" not in graph or "t" not in graph:
        return
    for start in list(graph["s"]):
        while True:
            path, seen = find_path(graph, start)
            if path is None:
                break
            least = min(graph[a][b] for a, b in path)
            for a, b in path:
                graph[a][b] -= least
                graph[b][a] += least
            graph["s"][start] -= least
            graph[start]["s"] = graph[start].get("s", 0) + least


def find_path(graph, start):
    parent, queue = {start: None, "s": None}, [start]
    for a in queue:
        for b, left in graph[a].items():
            if left <= 0 or b in parent:
                continue
            parent[b] = a
            if b == "t":
                path = []
                while parent[b] is not None:
                    path.append((parent[b], b))
                    b = parent[b]
                return path[::-1], parent
            queue.append(b)
    return None, parent


def block_inputs(network):
    """With every resnet and transformer block run again as a whole: what crosses from one block into others."""
    return {id(t): t for op in network.ops for t in op.reads
            if t.made is not None and t.made.block != op.block and t not in network.inputs}


def step_ops(network, kept, again, whole_blocks=False):
    """The step's ops in order: forward; then backward, with what runs again just before it is first read."""
    ops, made = list(network.ops), {}
    backward = network.backward()

    def renew(t):
        if t.made is None or id(t) in kept or (not whole_blocks and id(t.made) not in again):
            return t
        if id(t) not in made:
            old = t.made
            reads = [renew(u) for u in old.reads]
            writes = []
            for w in old.writes:
                copy = Tensor(w.bytes, None, w.name, w.small)
                copy.shape = w.shape
                made[id(w)] = copy
                writes.append(copy)
            flops = old.flops
            ops.append(Op(old.kind, reads, writes, old.weights, flops=flops, phase="backward", again=True))
        return made[id(t)]

    for op in backward:
        reads = [renew(t) for t in op.reads]
        over = op.over
        if over is not None:
            over = reads[[i for i, t in enumerate(op.reads) if t is op.over][0]]
        ops.append(Op(op.kind, reads, op.writes, op.weights, op.grads, op.flops, "backward", over))
    return ops
