# bash completion for mailwal(1): commands and options are asked from mailwal itself, so
# that they cannot differ from it.

# The words in `mailwal help [COMMAND]` that begin with "--".
_mailwal_options() {
	"$1" help "${@:2}" 2>/dev/null | grep -oE -e '--[a-z][a-z-]+' | sort -u
}

_mailwal() {
	local cur prev word cmd='' i
	COMPREPLY=()
	cur=${COMP_WORDS[COMP_CWORD]}
	prev=${COMP_WORDS[COMP_CWORD - 1]}
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		-c | -j | --config | --journal | --key | --passphrase-file) i=$((i + 1)) ;;
		-*) ;;
		*)
			cmd=$word
			break
			;;
		esac
	done
	case $prev in
	-c | --config | --key | --passphrase-file | --new-passphrase-file | --password-file | \
		--user-passwords | --tls-ca | --report | --checkpoint | --out)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	-j | --journal | --postfix-config | --scratch | --state | --dir)
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return
		;;
	--direction)
		mapfile -t COMPREPLY < <(compgen -W 'in out internal' -- "$cur")
		return
		;;
	--to)
		compopt -o nospace 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -W \
			'imap:// imaps:// lmtp: smtp: maildir: mbox: eml:' -- "$cur")
		return
		;;
	esac
	if [[ -z $cmd && $cur != -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W \
			"$("$1" help 2>/dev/null | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p')" \
			-- "$cur")
		return
	fi
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W \
			"$(_mailwal_options "$1" ${cmd:+"$cmd"}) --json --quiet --verbose" \
			-- "$cur")
		return
	fi
	case $cmd in
	config) word='check show explain sample' ;;
	setup) word='postfix sendmail dovecot' ;;
	hold) word='add rm list' ;;
	replay) word='plan prepare run verify undo' ;;
	drill) word='run list report verify' ;;
	help) word=$("$1" help 2>/dev/null | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p') ;;
	keys)
		mapfile -t COMPREPLY < <(compgen -f -W 'new list rotate rewrap' -- "$cur")
		return
		;;
	outcomes | audit)
		mapfile -t COMPREPLY < <(compgen -f -W journald -- "$cur")
		return
		;;
	init) mapfile -t COMPREPLY < <(compgen -d -- "$cur") && return ;;
	*) return ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$word" -- "$cur")
}

complete -F _mailwal mailwal
