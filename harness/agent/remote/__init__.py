"""The agent: the one program beside the device. Standard library only, Python 3.9 and later, travels as ``agent.pyz``.

main     options and start
link     the byte stream: a virtio-serial port, stdin and stdout, a socket
server   frames in, calls out, answers back; runs and their tokens
calls    one call: its arguments, its deadline, its end
verbs    the list of everything that the agent can be asked
…        one file a family of verbs
"""
