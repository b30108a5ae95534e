"""The system calls the filter speaks about, as `name:x86_64:aarch64` (`-`: there is none)."""

_PROCESSES = """
fork:57:- vfork:58:- execve:59:221 execveat:322:281 unshare:272:97 setns:308:268
"""

# Reading, stopping or slowing other processes.
_OTHER_PROCESSES = """
ptrace:101:117 process_vm_readv:310:270 process_vm_writev:311:271 process_madvise:440:440
process_mrelease:448:448 kcmp:312:272 migrate_pages:256:238 move_pages:279:239
pidfd_open:434:434 pidfd_send_signal:424:424 pidfd_getfd:438:438 setpriority:141:140
ioprio_set:251:30 sched_setaffinity:203:122 sched_setattr:314:274 sched_setparam:142:118
sched_setscheduler:144:119
"""

_NETWORK = """
socket:41:198 connect:42:203 bind:49:200 listen:50:201 accept:43:202 accept4:288:242
"""

# Memory that the address-space limit does not count, some of which outlives its process.
_KERNEL_MEMORY = """
shmget:29:194 shmat:30:196 shmctl:31:195 shmdt:67:197 semget:64:190 semop:65:193
semctl:66:191 semtimedop:220:192 msgget:68:186 msgsnd:69:189 msgrcv:70:188 msgctl:71:187
mq_open:240:180 mq_unlink:241:181 memfd_create:319:279 memfd_secret:447:447
"""

# Changes to files that Landlock does not cover.
_METADATA = """
chmod:90:- fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 chown:92:- fchown:93:55
lchown:94:- fchownat:260:54 utime:132:- utimes:235:- futimesat:261:- utimensat:280:88
setxattr:188:5 lsetxattr:189:6 fsetxattr:190:7 removexattr:197:14 lremovexattr:198:15
fremovexattr:199:16 mknod:133:- mknodat:259:33
"""

_SYSTEM = """
mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51 open_tree:428:428
move_mount:429:429 fsopen:430:430 fsconfig:431:431 fsmount:432:432 fspick:433:433
mount_setattr:442:442 open_by_handle_at:304:265 bpf:321:280 perf_event_open:298:241
keyctl:250:219 add_key:248:217 request_key:249:218 io_uring_setup:425:425
io_uring_enter:426:426 io_uring_register:427:427 userfaultfd:323:282 fanotify_init:300:262
fanotify_mark:301:263 reboot:169:142 kexec_load:246:104 kexec_file_load:320:294
init_module:175:105 finit_module:313:273 delete_module:176:106 swapon:167:224
swapoff:168:225 acct:163:89 quotactl:179:60 quotactl_fd:443:443 sethostname:170:161
setdomainname:171:162 settimeofday:164:170 clock_settime:227:112 clock_adjtime:305:266
adjtimex:159:171 syslog:103:116 iopl:172:- ioperm:173:- modify_ldt:154:- vhangup:153:58
sync:162:81 syncfs:306:267 personality:135:92 setrlimit:160:164
"""

# Creation and removal: Landlock's work, the filter's where Landlock is missing.
_FILES = """
creat:85:- unlink:87:- unlinkat:263:35 rename:82:- renameat:264:38 renameat2:316:276
mkdir:83:- mkdirat:258:34 rmdir:84:- link:86:- linkat:265:37 symlink:88:- symlinkat:266:36
truncate:76:45
"""

# Their arguments lie in memory, which a filter cannot read; callers fall back to older calls.
_UNREADABLE = """
clone3:435:435 openat2:437:437
"""

# Allowed or not by their arguments.
_BY_ARGUMENT = """
clone:56:220 kill:62:129 tkill:200:130 tgkill:234:131 rt_sigqueueinfo:129:138
rt_tgsigqueueinfo:297:240 prlimit64:302:261 prctl:157:167 ioctl:16:29 fcntl:72:25
socketpair:53:199 open:2:- openat:257:56
"""

FIRST_UNKNOWN = 463
"""Every call from this number on is younger than this list."""


def _numbers(table: str, machine: str) -> dict[str, int]:
    column = {"x86_64": 1, "aarch64": 2}[machine]
    rows = [entry.split(":") for entry in table.split()]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def denied(machine: str) -> list[int]:
    groups = (_PROCESSES, _OTHER_PROCESSES, _NETWORK, _KERNEL_MEMORY, _METADATA, _SYSTEM)
    return [number for group in groups for number in _numbers(group, machine).values()]


def file_changes(machine: str) -> list[int]:
    return list(_numbers(_FILES, machine).values())


def truncate(machine: str) -> int:
    return _numbers(_FILES, machine)["truncate"]


def unreadable(machine: str) -> list[int]:
    return list(_numbers(_UNREADABLE, machine).values())


def by_argument(machine: str) -> dict[str, int]:
    return _numbers(_BY_ARGUMENT, machine)
