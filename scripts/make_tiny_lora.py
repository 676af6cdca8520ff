"""Make a LoRA adapter for the tiny Llama: `python make_tiny_lora.py MODEL_DIR DIR`.

Runs in the vLLM environment. Its weights are a fixed pattern, not trained: large enough that its
answers differ from the base model's, and the same on every machine. For tests.

Rules of this room: nothing is fetched, nothing is random.
"""

import json
import sys
from pathlib import Path

RANK = 8
ALPHA = 16
STRENGTH = 0.5


def make(model: Path, folder: Path) -> None:
    """Fill `folder` with an adapter for the model's query and value projections, PEFT's form."""
    import numpy as np
    from safetensors.numpy import save_file

    config = json.loads((model / "config.json").read_text())
    hidden, head = config["hidden_size"], config["head_dim"]
    heads = {"q_proj": config["num_attention_heads"], "v_proj": config["num_key_value_heads"]}
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module, count in heads.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            for part, shape in (("lora_A", (RANK, hidden)), ("lora_B", (count * head, RANK))):
                steps = np.arange(shape[0] * shape[1], dtype=np.float64) * (layer + 1.7)
                weights = STRENGTH * np.sin(steps * steps)
                tensors[f"{name}.{part}.weight"] = weights.reshape(shape).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": model.name,
                "r": RANK,
                "lora_alpha": ALPHA,
                "lora_dropout": 0.0,
                "bias": "none",
                "target_modules": sorted(heads),
            }
        )
    )


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
