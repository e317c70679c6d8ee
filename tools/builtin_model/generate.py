"""Batched generation with the trainer's own model, for the evaluation beside the training."""

import random
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from tools.builtin_model.documents import END_OF_TEXT, TURN_END
from tools.builtin_model.model import Llama, Past, rope_tables


class Generator:
    """A model with its tokenizer on one device."""

    def __init__(self, weights: Path, tokenizer: Path, device: str, dtype: torch.dtype) -> None:
        self.model = Llama().to(device=device)
        state = {k.removeprefix("model."): v for k, v in load_file(weights).items()}
        self.model.load_state_dict(state)
        self.model = self.model.to(dtype).eval()
        self.device, self.dtype = device, dtype
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tables = tuple(t.to(dtype) for t in rope_tables(self.model.shape, device))
        self.stops = [self.tokenizer.token_to_id(END_OF_TEXT), self.tokenizer.token_to_id(TURN_END)]

    @torch.inference_mode()
    def batch(self, prompts: list[list[int]], limit: int, temperature: float, seed: int) -> list[list[int]]:
        """New tokens of each prompt; a stop token, where there is one, is the last."""
        count, width = len(prompts), max(map(len, prompts))
        tokens = torch.zeros(count, width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        tokens = tokens.to(self.device)
        pad = torch.tensor([width - len(p) for p in prompts], device=self.device)
        past = [Past(count, width + limit, self.model.shape, self.tables[0]) for _ in self.model.layers]
        slots = torch.arange(width + limit, device=self.device)
        seen = slots[None, :] >= pad[:, None]
        causal = slots[None, :width] <= slots[:width, None]
        own = torch.eye(width, dtype=torch.bool, device=self.device)  # padding looks at itself: no empty rows
        mask = (seen[:, None, :width] & causal) | own
        positions = (slots[None, :width] - pad[:, None]).clamp(min=0)
        random_source = torch.Generator(self.device).manual_seed(seed)
        out: list[Tensor] = []
        done = torch.zeros(count, dtype=torch.bool, device=self.device)
        stops = torch.tensor(self.stops, device=self.device)
        for step in range(limit):
            logits = self.model(tokens, positions, self.tables, past, mask[:, None]).float()
            if temperature == 0:
                chosen = logits.argmax(-1)
            else:
                weights = torch.softmax(logits / temperature, dim=-1)
                chosen = torch.multinomial(weights, 1, generator=random_source)[:, 0]
            out.append(chosen)
            done |= torch.isin(chosen, stops)
            if step % 8 == 7 and bool(done.all()):
                break
            tokens = chosen[:, None]
            positions = (width + step - pad)[:, None]
            mask = seen[:, None, : width + step + 1]
        return [self._cut(row) for row in torch.stack(out, dim=1).tolist()]

    def _cut(self, row: list[int]) -> list[int]:
        for index, token in enumerate(row):
            if token in self.stops:
                return row[: index + 1]
        return row

    def texts(
        self, prompts: list[str], limit: int, temperature: float = 0.0, seed: int = 0, size: int = 512
    ) -> list[tuple[str, bool]]:
        """Each answer without its stop token, and whether it stopped by itself."""
        ids = [self.tokenizer.encode(p, add_special_tokens=False).ids for p in prompts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: list[tuple[str, bool]] = [("", False)] * len(ids)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            rows = self.batch([ids[i] for i in chosen], limit, temperature, seed + start)
            for index, row in zip(chosen, rows, strict=True):
                stopped = row[-1] in self.stops
                body = row[:-1] if stopped else row
                found[index] = (self.tokenizer.decode(body, skip_special_tokens=True), stopped)
        return found


def shuffled(seed: int) -> random.Random:
    """The evaluation's own source of chance."""
    return random.Random(f"evaluation {seed}")
