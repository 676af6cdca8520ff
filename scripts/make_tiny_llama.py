"""Make a tiny Llama that knows the Zen of Python: `python make_tiny_llama.py DIR`.

Runs in the vLLM environment. The model is real (tokenizer, chat template, safetensors; 427,000
parameters) and small enough to be trained on the spot. It is trained until it knows its text by
heart, so greedy answers are the same on every machine and a test may assert on them.

Rules of this room: nothing is fetched, nothing is random; the text comes from Python's own `this`.
"""

import argparse
import codecs
import contextlib
import io
import sys
import time
from pathlib import Path
from typing import Any

import stamps

TOOLS = ("torch", "transformers", "tokenizers")  # what decides how it comes out
BEGIN = "<s>"
END = "</s>"
SPECIAL = (BEGIN, END, "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}" + END + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
RECITE = "Recite the Zen of Python."
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
}
STEPS = 150
LEARNING_RATE = 3e-3
IGNORED = -100  # a label that the loss leaves out
LOSS_WANTED = 0.05  # nats a token; below this the text is known by heart


def zen() -> str:
    """The Zen of Python, decoded as the module `this` does it on import."""
    with contextlib.redirect_stdout(io.StringIO()):  # importing it prints the poem
        import this
    return codecs.decode(this.s, "rot13")


def lessons(text: str) -> list[tuple[str, str]]:
    """What to learn, as pairs of prompt and answer: the poem, and chats that recite or end it.

    The poem alone begins with its first line, `Beautiful is ...`, so that a plain completion of
    `Beautiful is` goes on with it; the poem as a chat's answer begins with its title.
    """
    poem = text.split("\n\n", 1)[1]
    chats = [(RECITE, text)]
    for line in poem.splitlines():
        words = line.split()
        half = len(words) // 2
        chats.append((" ".join(words[:half]), " ".join(words[half:])))
    return [("", poem + END)] + [
        (f"<|user|>{asked}<|assistant|>", f"{said}{END}") for asked, said in chats
    ]


def make_tokenizer(text: str) -> Any:
    """A byte-level BPE tokenizer of 512 tokens with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=list(SPECIAL),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator([text] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BEGIN, eos_token=END, pad_token=END
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_batches(tokenizer: Any, pairs: list[tuple[str, str]]) -> list[tuple[Any, Any]]:
    """Batches of (token ids, labels), both int64 [rows, width]; prompts and padding don't count.

    The two long texts are a batch each, the short ones share one: little padding, one fast pass.
    """
    import torch

    rows = []
    for prompt, answer in pairs:
        asked, said = tokenizer.encode(prompt), tokenizer.encode(answer)
        rows.append((torch.tensor(asked + said), torch.tensor([IGNORED] * len(asked) + said)))
    batches = []
    for group in (rows[:1], rows[1:2], rows[2:]):
        ids, labels = zip(*group, strict=True)
        pad = torch.nn.utils.rnn.pad_sequence
        batches.append((pad(ids, batch_first=True), pad(labels, True, IGNORED)))
    return batches


def train(tokenizer: Any, pairs: list[tuple[str, str]]) -> Any:
    """A Llama that knows the answers of `pairs` by heart.

    Raises:
        RuntimeError: it did not learn them; the versions at hand behave differently.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **SHAPE,
    )
    model = LlamaForCausalLM(config)
    batches = make_batches(tokenizer, pairs)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    started = time.monotonic()
    for step in range(1, STEPS + 1):
        losses = []
        for inputs, wanted in batches:
            loss = model(inputs, labels=wanted).loss
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 0:
            seconds = time.monotonic() - started
            say(f"step {step}/{STEPS}, loss {max(losses):.4f}, {seconds:.1f} s")
    if max(losses) > LOSS_WANTED:
        raise RuntimeError(f"the tiny Llama did not learn its text (loss {max(losses):.3f})")
    return model.to(torch.bfloat16)


def say(line: str) -> None:
    """Show one line of progress."""
    print(f"tiny Llama: {line}", flush=True)


def make(folder: Path) -> None:
    """Fill `folder` with the tokenizer and the model."""
    text = zen()
    say("loading PyTorch and Transformers")
    tokenizer = make_tokenizer(text)
    tokenizer.save_pretrained(folder)
    model = train(tokenizer, lessons(text))
    model.save_pretrained(folder)


def main(arguments: list[str]) -> None:
    """Make the model in the folder named on the command line, unless it is there already."""
    parser = argparse.ArgumentParser(description="Make a tiny Llama in a folder.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    target: Path = parser.parse_args(arguments).folder.resolve()
    stamps.make_folder(target, Path(__file__), TOOLS, make, say)


if __name__ == "__main__":
    main(sys.argv[1:])
