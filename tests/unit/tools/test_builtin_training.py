"""The trainer's loss, which looks only at learned positions, against the plain one over all positions."""

import torch
import torch.nn.functional as F

from tools.builtin_model.train import Plan, Trainer


def test_loss_of_learned_positions_is_the_plain_loss():
    length = 24
    trainer = Trainer(Plan(batch_tokens=2 * length, length=length), "cpu", compiled=False)
    tokens = torch.randint(0, 6144, (2, length + 1), generator=torch.Generator().manual_seed(0))
    targets = torch.where(torch.arange(length + 1) % 4 == 1, tokens, -100)[:, 1:]
    cos, sin = (table[:length] for table in trainer.tables)
    trainer.loss(tokens[:, :-1], targets, cos, sin).backward()
    model = trainer.model
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    logits = model.hidden_states(tokens[:, :-1], cos, sin) @ model.embed_tokens.weight.T
    F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100).backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-5, rtol=1e-4)
