"""The public names as type checkers see them; __init__.py resolves the same ones on first use."""

from vllm.config.args import AsyncEngineArgs as AsyncEngineArgs
from vllm.config.args import EngineArgs as EngineArgs
from vllm.entrypoints.async_llm import AsyncLLMEngine as AsyncLLMEngine
from vllm.entrypoints.llm import LLM as LLM
from vllm.entrypoints.offline import LLMEngine as LLMEngine
from vllm.entrypoints.registry import ModelRegistry as ModelRegistry
from vllm.inputs import PromptType as PromptType
from vllm.inputs import TextPrompt as TextPrompt
from vllm.inputs import TokensPrompt as TokensPrompt
from vllm.outputs import ClassificationOutput as ClassificationOutput
from vllm.outputs import ClassificationRequestOutput as ClassificationRequestOutput
from vllm.outputs import CompletionOutput as CompletionOutput
from vllm.outputs import EmbeddingOutput as EmbeddingOutput
from vllm.outputs import EmbeddingRequestOutput as EmbeddingRequestOutput
from vllm.outputs import PoolingOutput as PoolingOutput
from vllm.outputs import PoolingRequestOutput as PoolingRequestOutput
from vllm.outputs import RequestOutput as RequestOutput
from vllm.outputs import ScoringOutput as ScoringOutput
from vllm.outputs import ScoringRequestOutput as ScoringRequestOutput
from vllm.pooling_params import PoolingParams as PoolingParams
from vllm.sampling_params import SamplingParams as SamplingParams
from vllm.version import __version__ as __version__
from vllm.version import __version_tuple__ as __version_tuple__
