"""Trains the built-in model; stops after `--seconds`, saves its state, and goes on from it in the next run.

python -m tools.builtin_model.train --out RUN --steps 9000 --seconds 500     # again with --resume RUN
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.builtin_model.mixture import LEARNED
from tools.builtin_model.model import Llama, Shape, rope_tables
from tools.builtin_model.muon import Optimizer
from tools.builtin_model.stream import shards

ASSETS = Path("vllm/builtin")
LEARNED_MOST = 0.35  # no batch learns more of its positions than this


def choose_attention(lengths: tuple[int, ...], tokens: int) -> str:
    """The faster of the two fused attentions on this GPU, forward and backward, at the row lengths of the plan."""
    best: dict[str, float] = {}
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        try:
            best[name] = sum(_attention_seconds(backend, length, tokens) for length in lengths)
        except RuntimeError as error:
            print(f"attention {name}: {str(error)[:100]}")
    print("attention, ms a layer:", {name: round(1e3 * seconds, 2) for name, seconds in best.items()}, flush=True)
    chosen = min(best, key=best.__getitem__)
    torch.backends.cuda.enable_flash_sdp(chosen == "flash")
    torch.backends.cuda.enable_cudnn_sdp(chosen == "cudnn")
    return chosen


def _attention_seconds(backend: SDPBackend, length: int, tokens: int) -> float:
    s = Shape()
    shape = (tokens // length, s.heads, length, s.head_dim)
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    with sdpa_kernel(backend):
        for turn in range(4):
            if turn == 2:
                torch.cuda.synchronize()
                begin = time.perf_counter()
            F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / 2


@dataclass
class Plan:
    """What fixes the result of a training, apart from the time limit of a run."""

    seed: int = 1
    steps: int = 9000
    batch_tokens: int = 131_072
    length: int = 1024
    long_length: int = 4096
    long_from: float = 0.88  # share of the steps after which rows are long
    rate: float = 3e-3
    warmup: int = 200
    decay_from: float = 0.5

    def rate_at(self, step: int) -> float:
        """Warm-up, flat, then straight down to a hundredth."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = step / self.steps
        if done < self.decay_from:
            return self.rate
        return self.rate * max(0.01, (1 - done) / (1 - self.decay_from))

    def long_step(self) -> int:
        """The first step with long rows."""
        return int(self.steps * self.long_from)


class Rows(torch.autograd.Function):
    """Some rows of a matrix, each at most once; the gradient is written without the adding that repeats would need."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows = matrix.shape[0]
        return matrix[index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (index,) = ctx.saved_tensors
        full = grad.new_zeros(ctx.rows, grad.shape[1])
        full[index] = grad
        return full, None


class Trainer:
    """Model, optimizer and position in the stream."""

    def __init__(self, plan: Plan, device: str, compiled: bool) -> None:
        torch.manual_seed(plan.seed)
        torch.backends.cuda.matmul.allow_tf32 = True
        if device == "cuda":
            choose_attention((plan.length, plan.long_length), plan.batch_tokens)
        self.plan, self.device, self.step = plan, device, 0
        self.model = Llama().to(device)
        self.optimizer = Optimizer(self.model)
        self.tables = rope_tables(Shape(), device)
        self.loss = torch.compile(self._loss, dynamic=False) if compiled else self._loss

    def _loss(self, tokens: Tensor, targets: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        # Most positions are only read: the large product with the vocabulary is made for those that are learned.
        flat = targets.flatten()
        chosen = (flat < 0).to(torch.uint8).argsort(stable=True)[: int(len(flat) * LEARNED_MOST)]
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device == "cuda"):
            hidden = Rows.apply(self.model.hidden_states(tokens, cos, sin).flatten(0, 1), chosen)
            logits = hidden @ self.model.embed_tokens.weight.T
        return F.cross_entropy(logits.float(), flat[chosen], ignore_index=-100)

    def batches(self, tokenizer: Path, workers: int) -> Iterator[Tensor]:
        """Marked tokens [rows, length + 1] for every step from the present one on; one shard holds eight batches."""
        plan = self.plan
        while True:
            long = self.step >= plan.long_step()
            length = plan.long_length if long else plan.length
            since = self.step - (plan.long_step() if long else 0)
            rows = plan.batch_tokens // length
            # Long shards have numbers of their own, so that no text is read twice.
            start = since // 8 + (10_000_000 if long else 0)
            skip = since % 8
            for shard in shards(tokenizer, plan.seed, start, length, rows * 8, workers):
                whole = torch.from_numpy(shard.astype("int32")).to(self.device, non_blocking=True)
                for index in range(skip, 8):
                    yield whole[index * rows : (index + 1) * rows]
                    if not long and self.step >= plan.long_step():
                        break
                skip = 0
                if not long and self.step >= plan.long_step():
                    break

    def train_step(self, marked: Tensor) -> Tensor:
        """One update; the loss stays on the device."""
        tokens = (marked & (int(LEARNED) - 1)).long()
        targets = torch.where(marked >= int(LEARNED), tokens, -100)[:, 1:]
        length = marked.shape[1] - 1
        loss = self.loss(tokens[:, :-1], targets, self.tables[0][:length], self.tables[1][:length])
        loss.backward()
        self.optimizer.step(self.plan.rate_at(self.step))
        self.step += 1
        return loss.detach()

    def save_weights(self, path: Path) -> dict[str, Tensor]:
        """Writes the weights in bfloat16; gives them back as they are."""
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {n: w.detach().cpu() for n, w in self.model.named_parameters()}
        save_file({n: w.bfloat16().contiguous() for n, w in weights.items()}, path)
        return weights

    def save(self, folder: Path) -> None:
        """The weights for use (`weights.safetensors`, bfloat16) and the state to go on from, in files below 16 MB."""
        weights = self.save_weights(folder / "weights.safetensors")
        state = {f"weight.{n}": w for n, w in weights.items()}
        state |= {n: t.cpu() for n, t in self.optimizer.state().items()}
        parts: list[dict[str, Tensor]] = [{}]
        size = 0
        for name, tensor in state.items():
            if size + tensor.nbytes > 15_500_000:
                parts.append({})
                size = 0
            parts[-1][name] = tensor.contiguous()
            size += tensor.nbytes
        for index, part in enumerate(parts):
            save_file(part, folder / f"state-{index}.safetensors")
        (folder / "plan.json").write_text(json.dumps({"plan": asdict(self.plan), "step": self.step}))

    def load(self, folder: Path) -> None:
        """Takes up a saved state."""
        self.step = json.loads((folder / "plan.json").read_text())["step"]
        state: dict[str, Tensor] = {}
        for path in sorted(folder.glob("state-*.safetensors")):
            state |= load_file(path)
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                weight.copy_(state[f"weight.{name}"])
        self.optimizer.load(state, self.step)


def run(trainer: Trainer, args: argparse.Namespace) -> None:
    """Steps until the plan or the time is done."""
    begin = time.monotonic()
    mark, marked_step, first_step = begin, trainer.step, trainer.step
    total = torch.zeros((), device=trainer.device)
    for batch in trainer.batches(args.tokenizer, args.workers):
        total += trainer.train_step(batch)
        if trainer.step == args.keep:
            trainer.save_weights(args.out / f"weights-{args.keep}.safetensors")
        if trainer.step % args.report == 0 or trainer.step == trainer.plan.steps:
            mean = total.item() / (trainer.step - marked_step)
            now = time.monotonic()
            rate = (trainer.step - marked_step) * trainer.plan.batch_tokens / (now - mark)
            print(f"step {trainer.step} loss {mean:.4f} {rate / 1e6:.2f} Mtok/s {now - begin:.0f} s", flush=True)
            mark, marked_step = now, trainer.step
            total.zero_()
            if now - begin > args.seconds:
                break
        if trainer.step >= trainer.plan.steps:
            break
    trainer.save(args.out)
    seconds = time.monotonic() - begin
    tokens = (trainer.step - first_step) * trainer.plan.batch_tokens
    with (args.out / "runs.jsonl").open("a") as log:
        record = {"from": first_step, "to": trainer.step, "tokens": tokens, "seconds": round(seconds, 1)}
        log.write(json.dumps(record | {"device": args.device, "torch": torch.__version__}) + "\n")
    print(f"saved at step {trainer.step} of {trainer.plan.steps}: {tokens / 1e6:.0f}M tokens in {seconds:.0f} s")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=ASSETS / "tokenizer.json")
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--keep", type=int, help="also keep the weights as they are after this step")
    parser.add_argument("--report", type=int, default=100)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", action="store_true")
    for name, value in asdict(Plan()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = parser.parse_args()
    plan = Plan(**{name: getattr(args, name) for name in asdict(Plan())})
    if args.resume:
        plan = Plan(**json.loads((args.resume / "plan.json").read_text())["plan"])
    trainer = Trainer(plan, args.device, compiled=not args.no_compile)
    if args.resume:
        trainer.load(args.resume)
    run(trainer, args)


if __name__ == "__main__":
    main()
