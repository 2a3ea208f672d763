"""The model of nmt on PyTorch's nn.LSTM, and so on cuDNN, for the comparison in `gpu.py`. Its quality is never tested.

Shapes: B sentences, S source positions, T target positions, M memory units, V tokens in the vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nmt.config.schema import ModelConfig
from nmt.data.batching import Batch
from nmt.data.tokenizer import BOS_ID, PAD_ID

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Attention(nn.Module):
    """Multi-head scaled dot attention."""

    def __init__(self, units: int, memory_units: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(units, units, bias=False)
        self.key = nn.Linear(memory_units, units, bias=False)
        self.value = nn.Linear(memory_units, units, bias=False)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Attends from query [B, T, U] to memory [B, S, M]. The mask [B, S] is True on real tokens."""
        heads = (self._split(x) for x in (self.query(query), self.key(memory), self.value(memory)))
        context = functional.scaled_dot_product_attention(*heads, attn_mask=mask[:, None, None, :])
        return context.transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Peer(nn.Module):
    """An LSTM encoder-decoder whose lower decoder layers attend, with tied embeddings and output projection."""

    def __init__(self, config: ModelConfig, vocabulary: int):
        super().__init__()
        embedding, memory, units = config.embedding_units, config.encoder_units, config.decoder_units
        self.num_layers = config.decoder_layers
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.encoder = nn.LSTM(embedding, memory // 2, bidirectional=True, batch_first=True)
        self.upper = nn.ModuleList(nn.LSTM(memory, memory, batch_first=True) for _ in range(config.encoder_layers - 1))
        self.start_state = nn.Linear(memory, 2 * self.num_layers * units)
        widths = [embedding] + [2 * units] * (self.num_layers - 1)
        self.layers = nn.ModuleList(nn.LSTM(width, units, batch_first=True) for width in widths)
        heads = config.attention_heads
        self.attentions = nn.ModuleList(Attention(units, memory, heads) for _ in range(config.attention_hops))
        self.attentional = nn.Linear(2 * units, embedding)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.dropout = nn.Dropout(config.layer_dropout)
        self.output_dropout = nn.Dropout(config.output_dropout)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Computes logits [B, T, V] of the next tokens, from source [B, S] and shifted target [B, T]."""
        mask = source != PAD_ID
        memory, _ = self.encoder(self.embedding_dropout(self.embedding(source)))
        for layer in self.upper:
            memory = memory + layer(self.dropout(memory))[0]
        start = torch.tanh(self.start_state(memory[:, -1])).unflatten(1, (2 * self.num_layers, -1)).transpose(0, 1)
        memory = self.dropout(memory)
        hidden, context = self.embedding_dropout(self.embedding(target)), None
        for n, layer in enumerate(self.layers):
            inputs = hidden if n == 0 else torch.cat([self.dropout(hidden), context], dim=-1)
            above, _ = layer(inputs, (start[2 * n : 2 * n + 1].contiguous(), start[2 * n + 1 : 2 * n + 2].contiguous()))
            hidden = above if n == 0 else hidden + above
            if n < len(self.attentions):
                context = self.attentions[n](hidden, memory, mask)
        states = torch.tanh(self.attentional(torch.cat([self.dropout(hidden), context], dim=-1)))
        return functional.linear(self.output_dropout(states), self.embedding.weight, self.bias)


def make_torch_learner(
    config: ModelConfig, vocabulary: int, precision: str, rate: float
) -> Callable[[Batch, int], Callable[[], Any]]:
    """Builds an update with Adam, label smoothing, and clipping to a norm of 1, as in nmt."""
    torch.manual_seed(1)
    # JAX multiplies float32 in TF32 on a GPU.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model = Peer(config, vocabulary).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98), fused=DEVICE == "cuda")

    def learn(batch: Batch, number: int) -> Callable[[], float]:
        source, target = (torch.from_numpy(x).to(DEVICE, torch.long) for x in (batch.source, batch.target))
        shifted = functional.pad(target[:, :-1], (1, 0), value=BOS_ID)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(source, shifted)
        loss = functional.cross_entropy(
            logits.float().flatten(0, 1), target.flatten(), ignore_index=PAD_ID, label_smoothing=0.1
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item

    return learn
