# SPDX-License-Identifier: GPL-2.0
# bash: what may follow in a command line of zcachesetup.

_zcachesetup_names() {
	command dmsetup info -c --noheadings -o name,uuid --separator ' ' 2>/dev/null |
		sed -n 's/ ZCACHE-.*//p'
}

_zcachesetup() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words
	case $before in
	--put) words='evict read' ;;
	--backing | --root) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
	--size | --priority | --wait) return ;;
	zcachesetup | */zcachesetup)
		words='open close flush resize reload status swap start stop table removable --help --version' ;;
	*)
		case ${COMP_WORDS[1]} in
		open) [[ $word == -* ]] || { mapfile -t COMPREPLY < <(compgen -f -- "$word"); return; }
			words=--put ;;
		reload) words="--put $(_zcachesetup_names)" ;;
		close | flush | resize) words=$(_zcachesetup_names) ;;
		status) words="--json $(_zcachesetup_names)" ;;
		swap)
			case ${COMP_WORDS[2]} in
			on) words='--backing --size --writethrough --priority' ;;
			off) words=$(compgen -G '/dev/zcswap*') ;;
			status) words=--json ;;
			*) words='on off status' ;;
			esac ;;
		start) words="--wait --all --initramfs --root $(zcachesetup table 2>/dev/null | cut -d ' ' -f 1)" ;;
		stop) words="--all $(zcachesetup table 2>/dev/null | cut -d ' ' -f 1)" ;;
		*) return ;;
		esac ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _zcachesetup zcachesetup
