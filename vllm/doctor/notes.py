"""The notes behind remedies in Chinese: `command   # note`. The command is the same in every language.

Called by: report, and the page of faults.
"""

_MARK = "   # "
_NOTES = {
    "a mirror; or HTTPS_PROXY=...; or HF_HUB_OFFLINE=1": "镜像；或 HTTPS_PROXY=...；或 HF_HUB_OFFLINE=1",
    "and report it with this line": "并连同本行一起报告",
    "any driver >= ": "可用的驱动 >= ",
    "end what is large; in a container: ": "结束占用内存大的进程；容器中：",
    "from https": "取自 https",
    "in Windows, with a Windows driver of NVIDIA >= 580 installed": "在 Windows 中执行，并装 NVIDIA >= 580 驱动",
    "in a container: on the host": "容器中：在宿主机上执行",
    "in a container: ": "容器中：",
    "in a virtual machine: choose the CPU model 'host'": "虚拟机中：CPU 型号选择 'host'",
    "in place of ": "代替 ",
    "no container: ": "非容器：",
    "or name the right proxy": "或填写正确的代理",
    "or see who it is: ": "或查看占用者：",
    "or: ": "或：",
    "ports below 1024 need root": "1024 以下的端口需要 root",
    "says why; a reboot of the machine often helps": "会说明原因；重启机器常常有效",
    "tells all": "显示全部信息",
    "then end it, or choose another GPU": "然后结束它，或选择其他 GPU",
    "then end what is large, or allow more memory: ": "然后结束占用内存大的进程，或允许更多内存：",
    "uninstall once for each": "每一份各卸载一次",
    "without root: a Python from conda or uv brings its headers": "没有 root 时：conda 或 uv 的 Python 自带头文件",
    "Windows; on macOS use a Linux container: ": "Windows；macOS 上请用 Linux 容器：",
    "; then: ": "；然后：",
}


def in_chinese(mend: str) -> str:
    """The remedy with its note in Chinese."""
    command, mark, note = mend.partition(_MARK)
    for english in sorted(_NOTES, key=len, reverse=True):
        note = note.replace(english, _NOTES[english])
    return command + mark + note
