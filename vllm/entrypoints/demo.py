"""Seven prompts through the built-in model, offline.

For: seeing in seconds that an installation works. Does not know: anything but the public names.
Called by: `vllm demo`, the packaging check.
"""

from vllm import LLM, SamplingParams

PROMPTS = [
    "Hello, my name is",
    "The president of the United States is",
    "The capital of France is",
    "The future of AI is",
    "你好，我的名字是",
    "美国总统是",
    "法国首都是",
]


def main() -> None:
    """Print each prompt with its completion."""
    with LLM() as llm:
        outputs = llm.generate(PROMPTS, SamplingParams(temperature=0.8, top_p=0.95, max_tokens=48))
    for output in outputs:
        print(f"Prompt:     {output.prompt}\nCompletion: {output.outputs[0].text.strip()}\n")


if __name__ == "__main__":
    main()
