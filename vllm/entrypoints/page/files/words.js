// The page's words in two languages, and how they get into it.

const WORDS = {
  en: {
    chat: "Chat", dashboard: "Dashboard", requests: "Requests", otherLanguage: "中文", theme: "Light or dark",
    settings: "Settings", system: "System prompt", temperature: "Temperature", maxTokens: "Most tokens", seed: "Seed",
    showProbabilities: "Colour tokens by probability; hover, tap or walk with arrows to see the others",
    write: "Write a message", send: "Send", stop: "Stop", clear: "New chat",
    keys: "Enter sends, Shift+Enter makes a new line, Esc stops. Alt+1, 2, 3 change the view.",
    you: "You", model: "Model", result: "Tool result", thinking: "Thinking …", thought: "Thoughts", call: "Tool call",
    copy: "Copy", copied: "Copied", retry: "Try again", down: "To the newest", thinkFirst: "Think before answering (models that can)",
    tools: "Tools, as a JSON list of functions", giveResult: (n) => `What does ${n} return?`,
    gone: "The server does not answer. Try again when the light above is green.", broken: "The answer broke off.", cut: "cut at the token limit", stopped: "stopped",
    hello: "Ask something. The built-in model knows capitals, small sums, short stories and JSON; other models know more.",
    examples: ["What is the capital of France?", "What is 127 + 385?", "Tell me a short story about a cat."],
    timeline: "The last steps: one bar each, height is tokens, and below it the time it took",
    throughput: "Tokens per second", load: "Sequences running and waiting", ttft: "Time to first token",
    itl: "Time between outputs", blocks: "Blocks of the KV cache", computed: "tokens computed", sampled: "tokens given",
    time: "time of the step", free: "free", cached: "kept for prefix hits", held: "held by one sequence",
    shared: "shared by several", perCell: (n) => n > 1 ? `one square is ${n} blocks` : "one square is one block",
    running: "Running", waiting: "Waiting", tokensPerSecond: "Tokens/s", kvUsed: "KV cache in use",
    hitRate: "Prefix hits", restarts: "Engine restarts", uptime: "Up for", ofBlocks: (h, n) => `${h} of ${n} blocks`,
    promptTokens: "Prompt", cachedTokens: "Cached", outputTokens: "Output", request: "Request", state: "State",
    age: "Age", cancel: "Cancel", noRequests: "No request is open.",
    waitingState: "waiting", prefill: "prompt", decode: "output",
    needKey: "This server wants an API key", go: "Go on", ready: "ready", starting: "engine starting",
    draining: "shutting down", lost: "no answer", none: "nothing yet", noEngine: "The engine is being restarted.",
    footer: (n, s, r, f) => `${n} tokens, ${s} s, ${r} tokens/s, first after ${f} ms`,
    context: "context", ago: (s) => s < 90 ? `${Math.round(s)} s ago` : `${Math.round(s / 60)} min ago`,
  },
  zh: {
    chat: "对话", dashboard: "仪表盘", requests: "请求", otherLanguage: "English", theme: "浅色或深色",
    settings: "设置", system: "系统提示词", temperature: "温度", maxTokens: "最多词元", seed: "随机种子",
    showProbabilities: "按概率给词元着色；悬停、点按或用方向键可看其他候选",
    write: "输入消息", send: "发送", stop: "停止", clear: "新对话",
    keys: "回车发送，Shift+回车换行，Esc 停止。Alt+1、2、3 切换页面。",
    you: "你", model: "模型", result: "工具结果", thinking: "思考中…", thought: "思考", call: "工具调用",
    copy: "复制", copied: "已复制", retry: "重试", down: "到最新处", thinkFirst: "先思考再回答（模型支持时）",
    tools: "工具：函数的 JSON 列表", giveResult: (n) => `${n} 返回什么？`,
    gone: "服务器没有应答。上方变绿后请重试。", broken: "回答中断了。", cut: "达到词元上限", stopped: "已停止",
    hello: "问点什么吧。内置模型会首都、简单算术、短故事和 JSON；其他模型会得更多。",
    examples: ["法国的首都是哪里？", "127 + 385 等于多少？", "讲一个关于猫的小故事。"],
    timeline: "最近的步：每步一根，上面的高度是词元数，下面是耗时",
    throughput: "每秒词元", load: "运行与等待的序列", ttft: "首个词元的时间",
    itl: "两次输出的间隔", blocks: "KV 缓存块", computed: "计算的词元", sampled: "输出的词元",
    time: "该步耗时", free: "空闲", cached: "留作前缀命中", held: "被一个序列占用",
    shared: "多个序列共享", perCell: (n) => n > 1 ? `一格是 ${n} 块` : "一格是一块",
    running: "运行", waiting: "等待", tokensPerSecond: "词元/秒", kvUsed: "KV 缓存占用",
    hitRate: "前缀命中", restarts: "引擎重启", uptime: "已运行", ofBlocks: (h, n) => `${n} 块中的 ${h} 块`,
    promptTokens: "提示", cachedTokens: "缓存", outputTokens: "输出", request: "请求", state: "状态",
    age: "时长", cancel: "取消", noRequests: "没有进行中的请求。",
    waitingState: "等待", prefill: "提示", decode: "输出",
    needKey: "这个服务器需要 API 密钥", go: "继续", ready: "就绪", starting: "引擎启动中",
    draining: "正在关闭", lost: "没有应答", none: "暂无", noEngine: "引擎正在重启。",
    footer: (n, s, r, f) => `${n} 个词元，${s} 秒，${r} 词元/秒，首个 ${f} 毫秒`,
    context: "上下文", ago: (s) => s < 90 ? `${Math.round(s)} 秒前` : `${Math.round(s / 60)} 分钟前`,
  },
};

let language = localStorage.getItem("vllm-language") || (navigator.language.startsWith("zh") ? "zh" : "en");

export function word(name, ...values) {
  const found = WORDS[language][name];
  return typeof found === "function" ? found(...values) : found;
}

export function changeLanguage() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("vllm-language", language);
  fill();
}

// Put the words where the page asks for them.
export function fill() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const at of document.querySelectorAll("[data-i18n]")) at.textContent = word(at.dataset.i18n);
  for (const at of document.querySelectorAll("[data-i18n-placeholder]")) at.placeholder = word(at.dataset.i18nPlaceholder);
  for (const at of document.querySelectorAll("[data-i18n-label]")) {
    at.setAttribute("aria-label", word(at.dataset.i18nLabel));
    at.title = word(at.dataset.i18nLabel);
  }
}
