"""Print what makes a shell complete commands, flags, and names of jobs as the cluster has them:
bash: source <(drivetrain completion bash); zsh: source <(drivetrain completion zsh); fish: drivetrain completion fish |
source. kubectl completes `kubectl drivetrain` by itself where kubectl_complete-drivetrain is on PATH, as after pip
install."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from drivetrain_cli.errors import Exit

_BASH: Final = r"""# bash completion of drivetrain
_drivetrain() {
    local line word words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    COMPREPLY=()
    while IFS=$'\t' read -r line _; do
        if [ "$line" = ":files" ]; then
            compopt -o filenames 2>/dev/null
            while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
        elif [ -n "$line" ]; then
            COMPREPLY+=("$line")
        fi
    done < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
}
complete -F _drivetrain drivetrain
"""
_ZSH: Final = r"""#compdef drivetrain
# zsh completion of drivetrain
_drivetrain() {
    local line value text
    local -a found
    for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        value=${line%%$'\t'*}
        text=${line#*$'\t'}
        if [[ $value == ":files" ]]; then
            _files
        elif [[ -n $value ]]; then
            found+=("${value//:/\\:}:$text")
        fi
    done
    (( ${#found} )) && _describe drivetrain found
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _drivetrain drivetrain
"""
_FISH: Final = r"""# fish completion of drivetrain
function __drivetrain_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] __complete $words[2..-1] 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c drivetrain -f -a '(__drivetrain_complete)'
"""
SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `drivetrain completion`."""
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="for which shell")


def run(arguments: argparse.Namespace) -> int:
    """0."""
    sys.stdout.write(SCRIPTS[arguments.shell])
    return Exit.OK
