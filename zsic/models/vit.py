"""CLIP and SigLIP written out: transformers' operations in transformers' order, without its seconds of imports.

Modules and weights have transformers' names, so files load as they are.  A checkpoint that is anything else than plain
(another activation, a weight that is missing, a file that is damaged) is left to transformers, which knows more kinds
and says what is wrong.  Tests hold both to the same bits.

Shape legend: B images, H W pixels, N tokens of an image, M tokens that ask, T texts, L tokens of a text, C channels of
a token, h heads, D embedding width.
"""

from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from zsic.models.checkpoint import Checkpoint
from zsic.models.config import PlainConfig, read_plain_config
from zsic.models.families import IMAGE_PARTS, TEXT_PARTS

_FLOATS = ("F64", "F32", "F16", "BF16")


class Pooled(NamedTuple):
    """What `get_image_features` and `get_text_features` return, as transformers' models do."""

    pooler_output: torch.Tensor


def load_plain(
    checkpoint: Checkpoint, part: Literal["image", "text"], dtype: torch.dtype | None = None
) -> nn.Module | None:
    """Load one tower of a CLIP or SigLIP on the CPU, ready for inference; None for what transformers has to load.

    The other tower's weights must be in the files too, in their shapes, but are not read.
    """
    config = read_plain_config(checkpoint)
    if config is None:
        return None
    model = _MODELS[config.model_type](config)
    try:
        files: list[Any] = [safe_open(path, framework="pt") for path in checkpoint.weight_paths()]
        if any((file.metadata() or {"format": "pt"}).get("format") != "pt" for file in files):
            return None
        file_of = {name: file for file in files for name in file.keys()}  # noqa: SIM118  It is no dict.
        if not all(_fits(file_of.get(name), name, weight) for name, weight in model.state_dict().items()):
            return None
        for name in TEXT_PARTS if part == "image" else IMAGE_PARTS:
            if hasattr(model, name):
                setattr(model, name, None)
        # Not copied, as transformers does not: where weights begin in memory decides the last bits of some products.
        weights = {name: file_of[name].get_tensor(name).to(dtype or torch.float32) for name in model.state_dict()}
    except (OSError, ValueError, SafetensorError):
        return None
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def _fits(file: Any, name: str, weight: torch.Tensor) -> bool:
    if file is None:
        return False
    found = file.get_slice(name)
    return tuple(found.get_shape()) == tuple(weight.shape) and found.get_dtype() in _FLOATS


# --- The parts.  Made without memory and without first values, which come with the weights: for random numbers on the
# device "meta", torch imports its compiler, which takes two seconds.


class _Linear(nn.Linear):
    def reset_parameters(self) -> None: ...


class _LayerNorm(nn.LayerNorm):
    def reset_parameters(self) -> None: ...


class _Embedding(nn.Embedding):
    def reset_parameters(self) -> None: ...


class _Conv2d(nn.Conv2d):
    def reset_parameters(self) -> None: ...


def _linear(n_in: int, n_out: int, *, bias: bool = True) -> nn.Linear:
    return _Linear(n_in, n_out, bias=bias, device="meta")


def _norm(config: Any) -> nn.LayerNorm:
    return _LayerNorm(config.hidden_size, eps=config.layer_norm_eps, device="meta")


def _table(n_rows: int, width: int) -> nn.Embedding:
    return _Embedding(n_rows, width, device="meta")


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, device="meta"))


class QuickGELUActivation(nn.Module):
    """`x * sigmoid(1.702 x)`, CLIP's approximation of GELU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


def _activation(name: str) -> nn.Module:
    if name == "quick_gelu":
        return QuickGELUActivation()
    return nn.GELU(approximate="tanh" if name == "gelu_pytorch_tanh" else "none")


class _Attention(nn.Module):
    """Self-attention; called and answered as transformers' own, so that `fuse_attention` can take its place."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.scale = (width // self.num_heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (_linear(width, width) for _ in range(4))

    def forward(
        self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None, is_causal: bool = False
    ) -> tuple[torch.Tensor, None]:
        b, n = hidden_states.shape[:2]
        queries, keys, values = (
            project(hidden_states).view(b, n, self.num_heads, -1).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        x_BhNc = nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=self.scale, is_causal=is_causal
        )
        return self.out_proj(x_BhNc.transpose(1, 2).reshape(b, n, -1)), None


class _Mlp(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.activation_fn = _activation(config.hidden_act)
        self.fc1 = _linear(config.hidden_size, config.intermediate_size)
        self.fc2 = _linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.fc2(self.activation_fn(self.fc1(x)))
        return hidden


class _Layer(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = _norm(config), _norm(config)
        self.self_attn = _Attention(config)
        self.mlp = _Mlp(config)

    def forward(self, x: torch.Tensor, **how: Any) -> torch.Tensor:
        x = x + self.self_attn(hidden_states=self.layer_norm1(x), **how)[0]
        x = x + self.mlp(self.layer_norm2(x))
        return x


class _Encoder(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: torch.Tensor, **how: Any) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, **how)
        return x


class _ImageEmbeddings(nn.Module):
    def __init__(self, config: Any, *, has_class: bool) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.class_embedding = _parameter(width) if has_class else None
        self.patch_embedding = _Conv2d(
            config.num_channels, width, kernel_size=patch, stride=patch, bias=not has_class, device="meta"
        )
        self.position_embedding = _table((config.image_size // patch) ** 2 + has_class, width)

    def forward(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        x_BNC = self.patch_embedding(x_B3HW).flatten(2).transpose(1, 2)
        if self.class_embedding is not None:
            x_BNC = torch.cat([self.class_embedding.expand(len(x_BNC), 1, -1), x_BNC], dim=1)
        embedded_BNC: torch.Tensor = x_BNC + self.position_embedding.weight
        return embedded_BNC


class _TextEmbeddings(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.token_embedding = _table(config.vocab_size, config.hidden_size)
        self.position_embedding = _table(config.max_position_embeddings, config.hidden_size)

    def forward(self, token_TL: torch.Tensor) -> torch.Tensor:
        x_TLC: torch.Tensor = self.token_embedding(token_TL)
        return x_TLC + self.position_embedding.weight[: token_TL.shape[1]]


def _attend(token_TL: torch.Tensor, mask_TL: torch.Tensor | None, *, is_causal: bool) -> dict[str, Any]:
    """Which tokens a token attends to: as transformers says it to torch, which has other kernels for other words."""
    n = token_TL.shape[1]
    if mask_TL is None or mask_TL.all():
        return {"is_causal": is_causal and n > 1}
    allowed_LL = torch.ones(n, n, dtype=torch.bool, device=token_TL.device)
    return {"mask": mask_TL.bool()[:, None, None, :] & (allowed_LL.tril() if is_causal else allowed_LL)}


# --- CLIP


class _ClipImageTower(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embeddings = _ImageEmbeddings(config, has_class=True)
        self.pre_layrnorm = _norm(config)  # as it is misspelt in every checkpoint
        self.encoder = _Encoder(config)
        self.post_layernorm = _norm(config)

    def forward(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        x_BNC = self.encoder(self.pre_layrnorm(self.embeddings(x_B3HW)))
        pooled_BC: torch.Tensor = self.post_layernorm(x_BNC[:, 0, :])
        return pooled_BC


class _ClipTextTower(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embeddings = _TextEmbeddings(config)
        self.encoder = _Encoder(config)
        self.final_layer_norm = _norm(config)
        self._end = config.eos_token_id

    def forward(self, token_TL: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        x_TLC = self.encoder(self.embeddings(token_TL), **_attend(token_TL, attention_mask, is_causal=True))
        x_TLC = self.final_layer_norm(x_TLC)
        # Checkpoints of before 2023 have a 2 here, and the end mark is the largest token there is.
        end_T = (token_TL.int() if self._end == 2 else (token_TL == self._end).int()).argmax(dim=-1)
        pooled_TC: torch.Tensor = x_TLC[torch.arange(len(x_TLC), device=x_TLC.device), end_T]
        return pooled_TC


class _Clip(nn.Module):
    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.config = config
        assert config.projection_dim is not None
        self.text_model: Any = _ClipTextTower(config.text_config)
        self.vision_model: Any = _ClipImageTower(config.vision_config)
        self.visual_projection: Any = _linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection: Any = _linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = _parameter()

    def get_image_features(self, pixel_values: torch.Tensor) -> Pooled:
        """[B, D], of any length."""
        return Pooled(self.visual_projection(self.vision_model(pixel_values)))

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Pooled:
        """[T, D], of any length."""
        return Pooled(self.text_projection(self.text_model(input_ids, attention_mask)))


# --- SigLIP


class _CrossAttention(nn.Module):
    """`nn.MultiheadAttention`, but for its first values."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.hidden_size
        self.in_proj_weight, self.in_proj_bias = _parameter(3 * width, width), _parameter(3 * width)
        self.out_proj = _linear(width, width)
        self._n_heads = config.num_attention_heads

    def forward(self, query_BMC: torch.Tensor, x_BNC: torch.Tensor) -> torch.Tensor:
        query_MBC, x_NBC = query_BMC.transpose(0, 1), x_BNC.transpose(0, 1)
        attended_MBC, _ = nn.functional.multi_head_attention_forward(
            query_MBC,
            x_NBC,
            x_NBC,
            embed_dim_to_check=x_BNC.shape[2],
            num_heads=self._n_heads,
            in_proj_weight=self.in_proj_weight,
            in_proj_bias=self.in_proj_bias,
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=self.out_proj.weight,
            out_proj_bias=self.out_proj.bias,
            training=False,
        )
        return attended_MBC.transpose(0, 1)


class _AttentionPooling(nn.Module):
    """One more token that attends to all others, in place of a class token."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.probe = _parameter(1, 1, config.hidden_size)
        self.attention = _CrossAttention(config)
        self.layernorm = _norm(config)
        self.mlp = _Mlp(config)

    def forward(self, x_BNC: torch.Tensor) -> torch.Tensor:
        x_B1C = self.attention(self.probe.repeat(len(x_BNC), 1, 1), x_BNC)
        x_B1C = x_B1C + self.mlp(self.layernorm(x_B1C))
        pooled_BC: torch.Tensor = x_B1C[:, 0]
        return pooled_BC


class _SiglipImageTower(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embeddings = _ImageEmbeddings(config, has_class=False)
        self.encoder = _Encoder(config)
        self.post_layernorm = _norm(config)
        self.head = _AttentionPooling(config)

    def forward(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        pooled_BC: torch.Tensor = self.head(self.post_layernorm(self.encoder(self.embeddings(x_B3HW))))
        return pooled_BC


class _SiglipTextTower(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embeddings = _TextEmbeddings(config)
        self.encoder = _Encoder(config)
        self.final_layer_norm = _norm(config)
        self.head = _linear(config.hidden_size, config.projection_size or config.hidden_size)

    def forward(self, token_TL: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        x_TLC = self.encoder(self.embeddings(token_TL), **_attend(token_TL, attention_mask, is_causal=False))
        pooled_TD: torch.Tensor = self.head(self.final_layer_norm(x_TLC)[:, -1, :])
        return pooled_TD


class _Siglip(nn.Module):
    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model: Any = _SiglipTextTower(config.text_config)
        self.vision_model: Any = _SiglipImageTower(config.vision_config)
        self.logit_scale = _parameter(1)
        self.logit_bias = _parameter(1)

    def get_image_features(self, pixel_values: torch.Tensor) -> Pooled:
        """[B, D], of any length."""
        return Pooled(self.vision_model(pixel_values))

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Pooled:
        """[T, D], of any length."""
        return Pooled(self.text_model(input_ids, attention_mask))


_MODELS = {"clip": _Clip, "siglip": _Siglip}
