/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The guest agent: runs commands for the host and passes on what they print. The
 * wire format is in README.md. It is PID 1, so it also reaps every orphan. */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "port.h"

#define MAX_PAYLOAD 65536
#define HEADER 9
#define MAX_TASKS 64
#define MAX_FILES 8
/* The host is told after so many bytes. README.md says how far ahead it may be. */
#define READ_STEP 1024

enum from_host { RUN = 1, KILL, PUT, DATA, POWEROFF, PING };
enum to_host { HELLO = 129, OUT, ERR, EXIT, READ };
enum exit_kind { EXITED, SIGNALLED, REFUSED };

struct task {
	bool used;
	uint32_t id;
	pid_t pid;
	/* Read ends for stdout and stderr; -1 after end of file. */
	int pipe[2];
};

struct file {
	bool used;
	uint32_t id;
	int fd;
	char path[4096];
	/* Where the bytes go until the file is complete. */
	char partial[4096 + 16];
};

static struct task tasks[MAX_TASKS];
static struct file files[MAX_FILES];
static sigset_t original_signals;
static int port = -1;
/* What was read from the port and the host has not been told. */
static uint32_t untold;
/* The interactive shell, if there is one. */
static pid_t shell = -1;

/*
 * Sends a frame. While the host is not connected it is dropped: a blocking write
 * would stop every command until the host comes back.
 */
static void send_frame(uint32_t id, enum to_host type, const void *payload, size_t size)
{
	static unsigned char frame[HEADER + MAX_PAYLOAD];
	const unsigned char *at = frame;
	size_t left = HEADER + size;

	put_le32(frame, (uint32_t)(5 + size));
	put_le32(frame + 4, id);
	frame[8] = (unsigned char)type;
	memcpy(frame + HEADER, payload, size);
	while (left) {
		struct pollfd wait = { .fd = port, .events = POLLOUT };
		ssize_t n;

		if (poll(&wait, 1, -1) < 0 && errno != EINTR)
			return;
		if (wait.revents & (POLLHUP | POLLERR | POLLNVAL))
			return;
		n = write(port, at, left);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return;
		if (n > 0) {
			at += n;
			left -= (size_t)n;
		}
	}
}

static void send_exit(uint32_t id, enum exit_kind kind, uint32_t value, const char *text)
{
	unsigned char payload[256] = { (unsigned char)kind };
	size_t len = strnlen(text, sizeof(payload) - 5);

	put_le32(payload + 1, value);
	memcpy(payload + 5, text, len);
	send_frame(id, EXIT, payload, 5 + len);
}

/* Answers that `what` failed with the errno `error`. */
static void refuse(uint32_t id, const char *what, int error)
{
	char text[200];

	snprintf(text, sizeof(text), "%.150s: %s", what, strerror(error));
	send_exit(id, REFUSED, (uint32_t)error, text);
}

static void send_hello(uint32_t id)
{
	struct utsname name;
	char text[128];
	int len;

	uname(&name);
	len = snprintf(text, sizeof(text), "zcache-agent 1 %s", name.release);
	send_frame(id, HELLO, text, (size_t)len);
}

/*
 * Sends some of what is in one of the task's pipes, and closes it at end of file.
 * One read per call: a command that never stops printing must not keep the agent
 * from seeing its KILL. Returns whether there may be more.
 */
static bool pass_on(struct task *task, int which)
{
	static char buffer[MAX_PAYLOAD];
	ssize_t n;

	if (task->pipe[which] < 0)
		return false;
	n = read(task->pipe[which], buffer, sizeof(buffer));
	if (n > 0) {
		send_frame(task->id, which ? ERR : OUT, buffer, (size_t)n);
		return true;
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		close(task->pipe[which]);
		task->pipe[which] = -1;
	}
	return false;
}

static void finish(struct task *task, int status)
{
	for (int which = 0; which < 2; which++) {
		/* What is left behind may go on writing; a pipe holds 64 KiB. */
		for (int reads = 0; reads < 16 && pass_on(task, which); reads++)
			;
		if (task->pipe[which] >= 0)
			close(task->pipe[which]);
	}
	if (WIFSIGNALED(status))
		send_exit(task->id, SIGNALLED, (uint32_t)WTERMSIG(status), "");
	else
		send_exit(task->id, EXITED, (uint32_t)WEXITSTATUS(status), "");
	task->used = false;
}

/* A file system that hangs must not keep the guest from powering off. */
static _Noreturn void power_off(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		sync();
		_exit(0);
	}
	for (int i = 0; i < 500 && waitpid(pid, NULL, WNOHANG) == 0; i++)
		usleep(10 * 1000);
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == shell)
			power_off();
		for (int i = 0; i < MAX_TASKS; i++) {
			if (tasks[i].used && tasks[i].pid == pid)
				finish(&tasks[i], status);
		}
	}
}

static void set_oom_score_adj(const char *value)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0)
		perror("zcache-agent: oom_score_adj");
	close(fd);
}

/*
 * Gives a new process back what the agent changed for itself. The shell that ran
 * `init` may have left signals ignored, too.
 */
static void become_ordinary(void)
{
	setsid();
	set_oom_score_adj("0");
	sigprocmask(SIG_SETMASK, &original_signals, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGQUIT, SIG_DFL);
}

/* In the child: never returns. */
static _Noreturn void become(char **argv, int out, int err)
{
	int null = open("/dev/null", O_RDONLY);

	become_ordinary();
	if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		_exit(126);
	if (null > 2)
		close(null);
	execvp(argv[0], argv);
	dprintf(2, "zcache-agent: %s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static void run(uint32_t id, char *payload, size_t size)
{
	struct task *task = NULL;
	int out[2], err[2];
	size_t argc = 0;
	char **argv;

	for (int i = 0; i < MAX_TASKS && !task; i++) {
		if (!tasks[i].used)
			task = &tasks[i];
	}
	if (!task)
		return refuse(id, "too many commands", EAGAIN);
	for (size_t i = 0; i < size; i++)
		argc += payload[i] == '\0';
	if (!argc || payload[size - 1] != '\0')
		return refuse(id, "argv is not a list of zero-ended strings", EINVAL);
	argv = calloc(argc + 1, sizeof(*argv));
	if (!argv)
		return refuse(id, "argv", ENOMEM);
	for (size_t i = 0; i < argc; i++) {
		argv[i] = payload;
		payload += strlen(payload) + 1;
	}

	if (pipe2(out, O_CLOEXEC) < 0) {
		refuse(id, "pipe", errno);
		free(argv);
		return;
	}
	if (pipe2(err, O_CLOEXEC) < 0) {
		refuse(id, "pipe", errno);
		close(out[0]);
		close(out[1]);
		free(argv);
		return;
	}
	task->pid = fork();
	if (task->pid == 0)
		become(argv, out[1], err[1]);
	if (task->pid < 0)
		refuse(id, "fork", errno);
	close(out[1]);
	close(err[1]);
	free(argv);
	if (task->pid < 0) {
		close(out[0]);
		close(err[0]);
		return;
	}
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(err[0], F_SETFL, O_NONBLOCK);
	task->id = id;
	task->pipe[0] = out[0];
	task->pipe[1] = err[0];
	task->used = true;
}

/* A shell on the console, whose end is the guest's. */
static void start_shell(void)
{
	shell = fork();
	if (shell == 0) {
		become_ordinary();
		/* Makes the device behind /dev/console the controlling terminal. */
		execl("/bin/busybox", "busybox", "cttyhack", "/bin/bash", "-l", NULL);
		perror("zcache-agent: shell");
		_exit(127);
	}
	if (shell < 0)
		perror("zcache-agent: shell");
}

static void kill_task(uint32_t id, int signal_number)
{
	for (int i = 0; i < MAX_TASKS; i++) {
		if (!tasks[i].used || tasks[i].id != id)
			continue;
		/* The child may not have reached setsid() yet. */
		if (kill(-tasks[i].pid, signal_number) < 0)
			kill(tasks[i].pid, signal_number);
	}
}

static void make_parents(const char *path)
{
	char part[sizeof(files[0].path)];

	snprintf(part, sizeof(part), "%s", path);
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(part, 0755);
		*slash = '/';
	}
}

static void put(uint32_t id, const char *payload, size_t size)
{
	struct file *file = NULL;
	uint32_t mode;

	for (int i = 0; i < MAX_FILES && !file; i++) {
		if (!files[i].used)
			file = &files[i];
	}
	if (!file)
		return refuse(id, "too many open files", EMFILE);
	if (size < 5 || size - 4 >= sizeof(file->path) || memchr(payload + 4, 0, size - 4))
		return refuse(id, "bad path", EINVAL);
	mode = get_le32((const unsigned char *)payload);
	memcpy(file->path, payload + 4, size - 4);
	file->path[size - 4] = '\0';
	snprintf(file->partial, sizeof(file->partial), "%s.part%u", file->path, id);

	make_parents(file->path);
	file->fd = open(file->partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (file->fd < 0)
		return refuse(id, file->path, errno);
	if (fchmod(file->fd, mode & 07777) < 0) {
		refuse(id, file->path, errno);
		close(file->fd);
		return;
	}
	file->id = id;
	file->used = true;
}

/* Frames for a file that has failed and been answered already are ignored. */
static void data(uint32_t id, const char *payload, size_t size)
{
	struct file *file = NULL;
	bool failed = false;
	bool last = size == 0;

	for (int i = 0; i < MAX_FILES && !file; i++) {
		if (files[i].used && files[i].id == id)
			file = &files[i];
	}
	if (!file)
		return;
	while (size) {
		ssize_t n = write(file->fd, payload, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			failed = true;
			break;
		}
		payload += n;
		size -= (size_t)n;
	}
	if (!failed && !last)
		return;
	if (!failed && rename(file->partial, file->path) == 0) {
		send_exit(id, EXITED, 0, "");
	} else {
		refuse(id, file->path, errno);
		unlink(file->partial);
	}
	close(file->fd);
	file->used = false;
}

static void handle(uint32_t id, unsigned type, char *payload, size_t size)
{
	switch (type) {
	case RUN:
		return run(id, payload, size);
	case KILL:
		if (size == 1)
			kill_task(id, payload[0]);
		return;
	case PUT:
		return put(id, payload, size);
	case DATA:
		return data(id, payload, size);
	case POWEROFF:
		power_off();
	case PING:
		return send_hello(id);
	default:
		return refuse(id, "unknown frame type", ENOSYS);
	}
}

/* Lets the host send more. */
static void tell_read(uint32_t size)
{
	unsigned char payload[4];

	untold += size;
	if (untold < READ_STEP)
		return;
	put_le32(payload, untold);
	untold = 0;
	send_frame(0, READ, payload, sizeof(payload));
}

/* Takes in what the port has; false when the frames no longer make sense. */
static bool receive(bool *connected)
{
	static unsigned char buffer[HEADER + MAX_PAYLOAD];
	static size_t have;
	ssize_t n = read(port, buffer + have, sizeof(buffer) - have);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0) {
		/* The host has gone; what it sends next starts a new frame. */
		*connected = false;
		have = 0;
		return true;
	}
	have += (size_t)n;
	tell_read((uint32_t)n);
	while (have >= HEADER) {
		uint32_t len = get_le32(buffer);
		size_t whole = (size_t)len + 4;

		if (len < 5 || len > MAX_PAYLOAD + 5) {
			have = 0;
			return false;
		}
		if (have < whole)
			break;
		handle(get_le32(buffer + 4), buffer[8], (char *)buffer + HEADER,
		       whole - HEADER);
		have -= whole;
		memmove(buffer, buffer + whole, have);
	}
	return true;
}

static void open_port(void)
{
	bool complained = false;

	if (port >= 0)
		close(port);
	while ((port = port_open("org.zcache.agent", O_NONBLOCK)) < 0) {
		if (!complained)
			fprintf(stderr, "zcache-agent: waiting for the port: %s\n",
				strerror(errno));
		complained = true;
		reap();
		usleep(20 * 1000);
	}
	untold = 0;
	send_hello(0);
}

/* `zcache-agent shell` also starts a shell on the console. */
int main(int argc, char **argv)
{
	struct pollfd polled[2 + 2 * MAX_TASKS];
	sigset_t signals;
	int signal_fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, &original_signals);
	signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signal_fd < 0) {
		perror("zcache-agent: signalfd");
		return 1;
	}
	set_oom_score_adj("-1000");
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		perror("zcache-agent: mlockall");
	if (argc > 1 && strcmp(argv[1], "shell") == 0)
		start_shell();
	open_port();

	for (;;) {
		bool connected = true;
		nfds_t count = 2;

		polled[0] = (struct pollfd){ .fd = port, .events = POLLIN };
		polled[1] = (struct pollfd){ .fd = signal_fd, .events = POLLIN };
		for (int i = 0; i < MAX_TASKS; i++) {
			for (int which = 0; which < 2; which++) {
				if (tasks[i].used && tasks[i].pipe[which] >= 0)
					polled[count++] = (struct pollfd){
						.fd = tasks[i].pipe[which],
						.events = POLLIN,
					};
			}
		}
		if (poll(polled, count, -1) < 0 && errno != EINTR) {
			perror("zcache-agent: poll");
			return 1;
		}
		for (int i = 0; i < MAX_TASKS; i++) {
			for (int which = 0; which < 2; which++) {
				if (tasks[i].used)
					pass_on(&tasks[i], which);
			}
		}
		if (polled[1].revents) {
			struct signalfd_siginfo info;

			while (read(signal_fd, &info, sizeof(info)) > 0)
				;
			reap();
		}
		if (polled[0].revents && !receive(&connected))
			open_port();
		/* A port without a host polls as ready all the time. */
		if (!connected)
			usleep(20 * 1000);
	}
}
