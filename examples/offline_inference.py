"""Complete a few prompts. Without --model the built-in demonstration model answers, and nothing is downloaded.

python examples/offline_inference.py [--model FOLDER_OR_HUB_ID]
"""

import argparse

from vllm import LLM, SamplingParams

PROMPTS = [
    "Hello, my name is",
    "The president of the United States is",
    "The capital of France is",
    "The future of AI is",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=None, help="a folder or a hub id, for example facebook/opt-125m")
    model = parser.parse_args().model
    sampling_params = SamplingParams(temperature=0.8, top_p=0.95)
    with LLM(model) if model else LLM() as llm:
        for output in llm.generate(PROMPTS, sampling_params):
            print(f"Prompt: {output.prompt!r}, Generated text: {output.outputs[0].text!r}")


if __name__ == "__main__":
    main()
